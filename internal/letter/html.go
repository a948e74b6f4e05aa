package letter

import (
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// plain is what can be read of HTML: its text, with a line break where a block begins or ends.
func plain(source string) string {
	var text strings.Builder
	hidden := atom.Atom(0) // the element whose content is not text
	spaces := strings.NewReplacer("\n", " ", "\r", " ")
	tokens := html.NewTokenizer(strings.NewReader(source))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return tidy(text.String())
		case html.TextToken:
			if hidden == 0 {
				text.WriteString(spaces.Replace(string(tokens.Text())))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name := tag(tokens)
			if hidden == 0 && isHidden(name) {
				hidden = name
			}
			breakLine(&text, name)
		case html.EndTagToken:
			name := tag(tokens)
			if name == hidden {
				hidden = 0
			}
			breakLine(&text, name)
		}
	}
}

func tag(tokens *html.Tokenizer) atom.Atom {
	name, _ := tokens.TagName()
	return atom.Lookup(name)
}

func isHidden(name atom.Atom) bool {
	switch name {
	case atom.Script, atom.Style, atom.Title, atom.Template, atom.Noscript:
		return true
	}
	return false
}

func breakLine(text *strings.Builder, name atom.Atom) {
	switch name {
	case atom.Br, atom.P, atom.Div, atom.Li, atom.Tr, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Pre, atom.Table, atom.Ul, atom.Ol:
		text.WriteByte('\n')
	}
}

// tidy takes away the spaces at the ends of lines, and empty lines.
func tidy(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

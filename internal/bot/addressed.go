package bot

import (
	"strings"
	"unicode"
)

// Addresses reports whether a text in a group is meant for the bot by its words: one of its commands, or a mention of its name. An answer
// to a message of the bot's is meant for it too, which the text does not tell.
func (m Manifest) Addresses(text string) bool {
	if word, ok := strings.CutPrefix(text, "/"); ok {
		if i := strings.IndexFunc(word, unicode.IsSpace); i >= 0 {
			word = word[:i]
		}
		name, _, _ := strings.Cut(word, "@")
		for _, known := range m.Commands {
			if strings.EqualFold(name, known.Name) {
				return true
			}
		}
	}
	return strings.Contains(strings.ToLower(text), "@"+strings.ToLower(m.Name))
}

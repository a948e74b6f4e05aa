package bot

import (
	"slices"
	"strings"
)

// Word is a command that the host answers in a bot's stead.
type Word string

// The host's words. WordStart is the host's for those who have stopped the bot; of others it is a message to the bot like any other.
const (
	WordStop  Word = "stop"
	WordStart Word = "start"
	WordAbout Word = "about"
	WordUsage Word = "usage"
	WordHelp  Word = "help"
)

// HostWord returns the host's word that a text begins with, or "", and whether the text names the bot, as in "/stop@Dice" or "/stop @Dice".
// One that names another is not the bot's at all. A text may begin with the quote of what it answers. /help is the bot's where its
// commands have it.
func (m Manifest) HostWord(text string) (word Word, named bool) {
	text, slash := strings.CutPrefix(withoutQuote(text), "/")
	if !slash {
		return "", false
	}
	first, rest, _ := strings.Cut(strings.ToLower(text), "\n")
	if fields := strings.Fields(first); len(fields) > 0 {
		first, rest = fields[0], strings.Join(fields[1:], " ")+" "+rest
	}
	name := strings.ToLower(m.Name)
	said, to, named := strings.Cut(first, "@")
	if named && to != name && !strings.HasPrefix(name, to+" ") {
		return "", false
	}
	word = Word(said)
	if !slices.Contains([]Word{WordStop, WordStart, WordAbout, WordUsage, WordHelp}, word) || word == WordHelp && m.Declares(word) {
		return "", false
	}
	return word, named || strings.Contains(rest, "@"+name)
}

// Declares reports whether the manifest's commands have a word.
func (m Manifest) Declares(w Word) bool {
	return slices.ContainsFunc(m.Commands, func(c Command) bool { return c.Name == string(w) })
}

// withoutQuote is a text without the lines that it quotes at its start, as core writes them into mails.
func withoutQuote(text string) string {
	if !strings.HasPrefix(text, ">") {
		return text
	}
	for strings.HasPrefix(text, ">") {
		_, text, _ = strings.Cut(text, "\n")
	}
	return strings.TrimLeft(text, "\n")
}

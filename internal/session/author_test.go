package session

import (
	"strings"
	"testing"

	"mayfly/internal/bot"
)

func TestReadContact(t *testing.T) {
	key := strings.Repeat("AB", 20)
	for contact, want := range map[string]struct {
		to bot.Fingerprint
		at bot.Address
	}{
		"ada@example.org":                                 {"", "ada@example.org"},
		"mailto:Ada@example.org?subject=x":                {"", "ada@example.org"},
		"https://i.delta.chat/#" + key:                    {bot.Fingerprint(key), ""},
		"https://i.delta.chat/#" + strings.ToLower(key):   {bot.Fingerprint(key), ""},
		"https://i.delta.chat/#" + key + "&i=1&a=u%40x.y": {bot.Fingerprint(key), "u@x.y"},
		"https://i.delta.chat/#" + key + "&a=u%ZZx.y":     {bot.Fingerprint(key), ""},
		"https://i.delta.chat/#" + key + "&a=u@x.y,v@x.y": {bot.Fingerprint(key), ""},
		"mailto:ümlaut@example.org":                       {"", ""},
	} {
		if to, at := readContact(contact); to != want.to || at != want.at {
			t.Errorf("%s: %q %q, want %q %q", contact, to, at, want.to, want.at)
		}
	}
}

package dispatch

import (
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
)

func TestWhichMessagesAreTheHosts(t *testing.T) {
	said := func(text string) gate.Verdict {
		return gate.Verdict{Kind: gate.Message, Plain: true, From: "ada@chat.test", Text: text}
	}
	for text, want := range map[string]string{
		"/stop": "stop", "/STOP please": "stop", "/start\nagain": "start", "/about@Dice": "about", "/about@dice bot": "about",
		"/stop@Other": "", "/stopit": "", "stop": "", " /stop": "", "/": "", "/@": "", "/roll 2d6": "", "": "",
	} {
		if got := hostWord(said(text), "Dice"); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{"/stop": "", "/stop@Dice": "stop", "/stop @dice": "stop", "/stop @other": ""} {
		v := said(text)
		v.Group = true
		if got := hostWord(v, "Dice"); got != want {
			t.Errorf("in a group %q is %q, want %q", text, got, want)
		}
	}
	for name, change := range map[string]func(*gate.Verdict){
		"a handshake":                      func(v *gate.Verdict) { v.Kind = gate.Handshake },
		"what the gate is unsure of":       func(v *gate.Verdict) { v.Uncertain = true },
		"more than a text":                 func(v *gate.Verdict) { v.Plain = false },
		"a bot's":                          func(v *gate.Verdict) { v.ByBot = true },
		"of an address nobody vouches for": func(v *gate.Verdict) { v.Misplaced = true },
		"of no address":                    func(v *gate.Verdict) { v.From = "" },
	} {
		v := said("/stop")
		change(&v)
		if got := hostWord(v, "Dice"); got != "" {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func TestWhatStartsNothing(t *testing.T) {
	m := bot.Manifest{Name: "Dice", GroupPrivacy: true}
	for name, c := range map[string]struct {
		v    gate.Verdict
		want string
	}{
		"alone":            {gate.Verdict{Plain: true, Text: "hi"}, ""},
		"chatter":          {gate.Verdict{Plain: true, Group: true, Text: "hi"}, "group privacy"},
		"a mention":        {gate.Verdict{Plain: true, Group: true, Text: "hi @dice"}, ""},
		"a quote":          {gate.Verdict{Plain: true, Group: true, Text: "> hi"}, ""},
		"a cut text":       {gate.Verdict{Plain: true, Group: true, Cut: true, Text: "hi"}, ""},
		"a new member":     {gate.Verdict{Plain: true, Group: true, NewSender: true, Text: "hi"}, ""},
		"more than a text": {gate.Verdict{Group: true, Text: "hi"}, ""},
		"a bot":            {gate.Verdict{Plain: true, ByBot: true, Text: "hi @dice"}, "of a bot"},
	} {
		if got := idle(c.v, m); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := idle(gate.Verdict{Plain: true, Group: true, Text: "hi"}, bot.Manifest{Name: "Dice"}); got != "" {
		t.Errorf("chatter without privacy: %q", got)
	}
}

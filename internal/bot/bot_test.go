package bot

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]Address{
		"bot000001@chat.test":          "bot000001@chat.test",
		" Bot@Chat.Test ":              "bot@chat.test",
		"a.b-c_d+e=f@x.example":        "a.b-c_d+e=f@x.example",
		"user@[127.0.0.1]":             "user@[127.0.0.1]",
		"user@[ipv6:fe80::1]":          "user@[ipv6:fe80::1]",
		strings.Repeat("x", 64) + "@x": Address(strings.Repeat("x", 64) + "@x"),
	} {
		if got, err := ParseAddress(in); err != nil || got != want {
			t.Errorf("ParseAddress(%q) is %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "@", "a@", "@b", "nobody", "a b@c", "a@b c", "<a@b>", "A <a@b>", "a@b, c@d", "a@b@c", "a/b@c", "../a@b", ".a@b",
		"a..b@c", "a@b..c", "a\n@b", "a@b\r\nBcc: c@d", "a\x00@b", "ä@b", "a@bücher", `"a"@b`, "a@b/c", "a*mayfly@b",
		strings.Repeat("x", 65) + "@x", "a@" + strings.Repeat("x", 254),
	} {
		if got, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("ParseAddress(%q) is %q, %v, want ErrAddress", in, got, err)
		}
	}
}

// FuzzParseAddress holds that what is taken can be used as a name of a folder, in an SMTP command and in a header.
func FuzzParseAddress(f *testing.F) {
	f.Add("bot000001@chat.test")
	f.Add("user@[::1]")
	f.Add("../../x@y")
	f.Add("a@b\r\nRCPT TO:<c@d>")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := ParseAddress(in)
		if err != nil {
			return
		}
		if strings.ContainsAny(string(a), "/\\\r\n\x00<> \"*,;") || strings.HasPrefix(string(a), ".") || strings.Count(string(a), "@") != 1 {
			t.Errorf("ParseAddress(%q) let %q through", in, a)
		}
		if a.Local()+"@"+a.Domain() != string(a) {
			t.Errorf("%q is not its parts %q and %q", a, a.Local(), a.Domain())
		}
		if again, err := ParseAddress(string(a)); err != nil || again != a {
			t.Errorf("%q does not parse to itself: %q, %v", a, again, err)
		}
	})
}

func TestDrained(t *testing.T) {
	if !(Pending{IMAPQueue: 3}).Drained() {
		t.Error("what core wants of its server is no reason to wait: the minirelay ends with the session")
	}
	for _, p := range []Pending{{SMTP: 1}, {Status: 1}, {Download: 1}, {PostMsgs: 1}} {
		if p.Drained() {
			t.Errorf("%+v is drained", p)
		}
	}
}

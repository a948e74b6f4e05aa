package gate

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// said is a text of the stranger with these header lines and this body.
func (c cast) said(t testing.TB, body string, extra ...string) []byte {
	t.Helper()
	mail := strings.TrimSuffix(c.intro(t, extra...), "hello\r\n") + body
	return envelope(t, c.toBot().seal(t, signed(t, signing{key: c.stranger.PrivateKey}, mail)))
}

func TestTextOfAMessage(t *testing.T) {
	c := newCast(t)
	long := strings.Repeat("ä", MaxText)
	const multi = "Content-Type: multipart/mixed; boundary=x"
	for name, test := range map[string]struct {
		body  string
		extra []string
		text  string
		cut   bool
		plain bool
	}{
		"plain":            {"/stop\r\nplease\r\n", nil, "/stop\nplease\n", false, true},
		"typed":            {"hi", []string{`Content-Type: text/plain; charset="UTF-8"`}, "hi", false, true},
		"quoted-printable": {"/st=\r\nop =C3=A4", []string{"Content-Transfer-Encoding: quoted-printable"}, "/stop ä", false, true},
		"base64":           {"L3N0\r\nb3A=", []string{"Content-Transfer-Encoding: Base64"}, "/stop", false, true},
		"long":             {long, nil, long[:MaxText], true, true},
		"long, odd":        {"x" + long, nil, "x" + long[:MaxText-2], true, true},
		"another charset":  {"/stop", []string{"Content-Type: text/plain; charset=utf-16"}, "", true, true},
		"unknown encoding": {"/stop", []string{"Content-Transfer-Encoding: x-uuencode"}, "", true, true},
		"no UTF-8":         {"\xff/stop", nil, "", true, true},
		"broken base64":    {"!!!!", []string{"Content-Transfer-Encoding: base64"}, "", true, true},
		"HTML":             {"/stop", []string{"Content-Type: text/html"}, "", false, false},
		"unreadable type":  {"/stop", []string{"Content-Type: text/plain; charset=\"utf-8"}, "", false, false},
		"a file":           {"/stop", []string{"Content-Disposition: attachment"}, "", false, false},
		"a reaction":       {"x", []string{"Content-Disposition: reaction"}, "x", false, false},
		"an edit":          {"x", []string{"Chat-Edit: <1@x>"}, "x", false, false},
		"a deletion":       {"x", []string{"Chat-Delete: <1@x>"}, "x", false, false},
		"a new member":     {"x", []string{"Chat-Group-Member-Added: a@x"}, "x", false, false},
		"a new name":       {"x", []string{"Chat-Group-Name-Changed: y"}, "x", false, false},
		"an avatar":        {"x", []string{"Chat-User-Avatar: base64:AA"}, "x", false, false},
		"keys of others":   {"x", []string{"Autocrypt-Gossip: addr=a@x; keydata=AA"}, "x", false, false},
		"something new":    {"x", []string{"Chat-Tomorrow: 1"}, "x", false, false},
		"text and file": {"--x\r\nContent-Type: text/plain\r\n\r\nsee\r\n--x\r\nContent-Type: image/png\r\n\r\nPNG\r\n--x--", []string{multi},
			"see", false, false},
		"file and text": {"--x\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nno\r\n--x\r\n\r\n/stop\r\n--x--", []string{multi},
			"/stop", false, false},
		"nested": {"--x\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n--y\r\n\r\none\r\n--y\r\n\r\ntwo\r\n--y--\r\n--x--", []string{multi},
			"one", false, false},
		"not closed": {"--x\r\n\r\n/stop", []string{multi}, "/stop", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := Check(c.said(t, test.body, test.extra...), c.keys, nil, DefaultBounds())
			if v.Kind != Message || v.Text != test.text || v.Cut != test.cut || v.Plain != test.plain {
				t.Errorf("%s %s, text %.40q (%d), cut %v, plain %v", v.Kind, v.Detail, v.Text, len(v.Text), v.Cut, v.Plain)
			}
		})
	}
}

func TestWhatAMessageIs(t *testing.T) {
	c := newCast(t)
	for name, test := range map[string]struct {
		extra        []string
		group, byBot bool
	}{
		"direct":       {nil, false, false},
		"in a group":   {[]string{"Chat-Group-ID: AbCd", "Chat-Group-Name: Club"}, true, false},
		"by a bot":     {[]string{"Auto-Submitted: auto-generated"}, false, true},
		"by a person":  {[]string{"Auto-Submitted: No"}, false, false},
		"bot in group": {[]string{"Auto-Submitted: auto-replied; x=y", "Chat-Group-ID: x"}, true, true},
	} {
		v := Check(c.said(t, "x", test.extra...), c.keys, nil, DefaultBounds())
		if v.Kind != Message || !v.Plain || v.Group != test.group || v.ByBot != test.byBot || !v.NewSender || v.Misplaced {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// Outer fields are not signed: they say nothing.
	mail := strings.Replace(string(c.said(t, "x")), "Message-ID: <outer@chat.test>", "Chat-Group-ID: x\r\nAuto-Submitted: auto-generated", 1)
	if v := Check([]byte(mail), c.keys, nil, DefaultBounds()); v.Kind != Message || v.Group || v.ByBot {
		t.Errorf("outer fields count: %+v", v)
	}
	if v := Check(sample(t, "eml/5-text.user.eml"), c.keys, nil, DefaultBounds()); v.NewSender || !v.Plain || v.Misplaced ||
		v.Text != "hello bot, this is a test message\n" && v.Text != "hello bot, this is a test message" {
		t.Errorf("core's own text: %+v", v)
	}
	if v := Check(sample(t, "abuse/abuse-11.eml"), c.keys, nil, DefaultBounds()); !v.Misplaced {
		t.Errorf("another outer From: %+v", v)
	}
}

// FuzzText fuzzes what a known sender may write: header and body.
func FuzzText(f *testing.F) {
	c := newCast(f)
	f.Add("Content-Type: multipart/mixed; boundary=x", "--x\r\nContent-Transfer-Encoding: base64\r\n\r\nL3N0b3A=\r\n--x--")
	f.Add("Content-Transfer-Encoding: quoted-printable", "/st=\r\nop =C3=A4")
	f.Add("Content-Type: text/plain; charset=utf-8; format=flowed\r\nChat-Group-ID: x", "> quote\r\n\r\n/stop@bot")
	f.Fuzz(func(t *testing.T, extra, body string) {
		v := Check(c.said(t, body, extra), c.keys, nil, DefaultBounds())
		checkSound(t, v)
		if len(v.Text) > MaxText || !utf8.ValidString(v.Text) {
			t.Errorf("text of %d bytes: %.40q", len(v.Text), v.Text)
		}
	})
}

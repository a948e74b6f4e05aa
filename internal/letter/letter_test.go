package letter

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// lines ends lines as SMTP does.
func lines(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// seeds are mails as clients make them, and as nobody should.
func seeds() map[string]struct {
	mail string
	want Letter
} {
	return map[string]struct {
		mail string
		want Letter
	}{
		"plain": {"From: bot@x.test\nSubject: Re: hello\nIn-Reply-To: <1@x> <2@x>\n\nan answer\nof two lines\n",
			Letter{Text: "an answer\nof two lines", InReplyTo: []string{"1@x", "2@x"}}},
		"subject":         {"Subject: =?utf-8?q?Caf=C3=A9?= today\n\nopen\n", Letter{Text: "Café today – open"}},
		"subject alone":   {"Subject: done\n\n", Letter{Text: "done"}},
		"latin1":          {"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nna=EFve\n", Letter{Text: "naïve"}},
		"unknown charset": {"Content-Type: text/plain; charset=x-none\n\n\xff hi\n", Letter{Text: "\uFFFD hi"}},
		"html": {"Content-Type: text/html\n\n<title>no</title><p>Hello\n<b>you</b> &amp; me</p><script>no()</script><ul><li>one<li>two</ul>\n",
			Letter{Text: "Hello you & me\none\ntwo", HTML: "<title>no</title><p>Hello\n<b>you</b> &amp; me</p><script>no()</script><ul><li>one<li>two</ul>"}},
		"alternative": {"Content-Type: multipart/alternative; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: text/html\n\n<i>text</i>\n--b--\n",
			Letter{Text: "text", HTML: "<i>text</i>"}},
		"attachments": {`Content-Type: multipart/mixed; boundary="a b"

preamble
--a b
Content-Type: text/plain

see these
--a b
Content-Type: image/PNG
Content-Disposition: attachment; filename="../../etc/pass wd.png"
Content-Transfer-Encoding: base64

aGVs
bG8=
--a b
Content-Type: text/plain; name="=?utf-8?q?=C3=A4.txt?="
Content-Disposition: attachment

note
--a b
Content-Type: message/rfc822

Subject: inner

multipart/mixed; boundary=a b
--a b--
epilogue
`, Letter{Text: "see these", Files: []File{
			{"pass wd.png", "image/png", []byte("hello")}, {"ä.txt", "text/plain", []byte("note")},
			{"file", "message/rfc822", []byte("Subject: inner\r\n\r\nmultipart/mixed; boundary=a b")}}}},
		"nested": {"Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/related; boundary=i\n\n--i\nContent-Type: text/html\n\n<p>x\n" +
			"--i\nContent-Type: image/gif\nContent-ID: <p>\n\nGIF\n--i--\n--o\n\nmore\n--o--\n",
			Letter{Text: "more", HTML: "<p>x", Files: []File{{"file", "image/gif", []byte("GIF")}}}},
	}
}

func TestMailsOfClients(t *testing.T) {
	for name, test := range seeds() {
		for _, mail := range [][]byte{lines(test.mail), []byte(test.mail)} {
			got, err := Read(mail, DefaultLimits())
			for i := range got.Files {
				got.Files[i].Data = []byte(strings.TrimSpace(string(got.Files[i].Data)))
			}
			if strings.Contains(string(mail), "\r") && err == nil && !reflect.DeepEqual(got, test.want) || err != nil {
				t.Errorf("%s: got %q, %v\nwant %q", name, got, err, test.want)
			}
		}
	}
}

// hostile are mails that are over a limit, or no mails.
func hostile() map[string]struct {
	mail string
	want error
} {
	deep := ""
	for i := range 20 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	mixed := "Content-Type: multipart/mixed; boundary=b\n\n"
	return map[string]struct {
		mail string
		want error
	}{
		"empty":         {"", ErrEmpty},
		"nothing in it": {"From: a@b\n\n \n", ErrEmpty},
		"no header":     {"hello, this is no mail\n", ErrMalformed},
		"long header":   {"X: " + strings.Repeat("x", 70_000) + "\n\nhi\n", ErrMalformed},
		"many fields":   {strings.Repeat("a:b\n", 50_000) + "\nhi\n", ErrMalformed},
		"part's header": {mixed + "--b\n" + strings.Repeat("a:b\n", 50_000) + "\nhi\n--b--\n", ErrMalformed},
		"preamble":      {mixed + strings.Repeat("preamble\n", 20_000) + "--b\n\nhi\n--b--\n", ErrMalformed},
		"no boundary":   {"Content-Type: multipart/mixed\n\nhi\n", ErrMalformed},
		"boundary":      {"Content-Type: multipart/mixed; boundary=" + strings.Repeat("b", 5000) + "\n\nhi\n", ErrMalformed},
		"no end":        {mixed + "--b\n\nhi\n", ErrMalformed},
		"deep":          {deep + "\nhi\n", ErrTooMuch},
		"many parts":    {mixed + strings.Repeat("--b\n\nhi\n", 60) + "--b--\n", ErrTooMuch},
		"many files":    {mixed + strings.Repeat("--b\nContent-Type: image/png\n\nhi\n", 11) + "--b--\n", ErrTooMuch},
		"large file":    {"Content-Type: image/png\n\n" + strings.Repeat("x", 20<<20+1), ErrTooMuch},
		"long text":     {"From: a@b\n\n" + strings.Repeat("x", 100_001), ErrTooMuch},
		"long HTML":     {"Content-Type: text/html\n\n" + strings.Repeat("x", 100_001), ErrTooMuch},
		"long together": {mixed + strings.Repeat("--b\n\n"+strings.Repeat("x", 60_000)+"\n", 2) + "--b--\n", ErrTooMuch},
		"broken base64": {"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n!!!!\n", ErrMalformed},
	}
}

func TestLimits(t *testing.T) {
	for name, test := range hostile() {
		if got, err := Read(lines(test.mail), DefaultLimits()); !errors.Is(err, test.want) {
			t.Errorf("%s: got %.200q, %v, want %v", name, got.Text, err, test.want)
		}
	}
}

func TestLongNamesKeepTheirExtension(t *testing.T) {
	name := strings.Repeat("ä", 300) + ".tar.gz"
	got, err := Read(lines("Content-Type: application/gzip; name=\""+name+"\"\n\nx"), DefaultLimits())
	if err != nil || len(got.Files) != 1 {
		t.Fatal(got, err)
	}
	if n := got.Files[0].Name; len(n) > maxName || !strings.HasSuffix(n, "ä.gz") || !utf8.ValidString(n) {
		t.Errorf("the name is %q (%d bytes)", n, len(n))
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(lines(seed.mail))
		f.Add([]byte(seed.mail))
	}
	for _, seed := range hostile() {
		if len(seed.mail) < 2000 {
			f.Add(lines(seed.mail))
		}
	}
	l := Limits{Header: 2000, Parts: 10, Depth: 3, Files: 4, File: 2000, Text: 1000}
	f.Fuzz(func(t *testing.T, mail []byte) {
		got, err := Read(mail, l)
		if err != nil {
			if !errors.Is(err, ErrTooMuch) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrEmpty) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if got.Text == "" && len(got.Files) == 0 {
			t.Error("nothing was read, and no error")
		}
		for _, s := range []string{got.Text, got.HTML} {
			if len(s) > l.Text || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.Errorf("text of %d bytes: %q", len(s), s)
			}
		}
		sum := 0
		for _, file := range got.Files {
			sum += len(file.Data)
			if len(file.Data) > l.File {
				t.Errorf("a file of %d bytes", len(file.Data))
			}
			if n := file.Name; n == "" || n == "." || n == ".." || len(n) > maxName || strings.ContainsAny(n, "/\\\x00\n") || !utf8.ValidString(n) {
				t.Errorf("file name %q", n)
			}
		}
		if len(got.Files) > l.Files || sum > 4*len(mail) || len(got.InReplyTo) > maxIDs {
			t.Errorf("%d files of %d bytes, of a mail of %d", len(got.Files), sum, len(mail))
		}
	})
}

package accountreader

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// coreSchema is the part of core 2.62's schema that the queries need.
const coreSchema = `
CREATE TABLE config (id INTEGER PRIMARY KEY, keyname TEXT UNIQUE, value TEXT NOT NULL);
CREATE TABLE keypairs (id INTEGER PRIMARY KEY AUTOINCREMENT, private_key UNIQUE NOT NULL, public_key UNIQUE NOT NULL);
CREATE TABLE public_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE, public_key BLOB NOT NULL) STRICT;
CREATE TABLE tokens (id INTEGER PRIMARY KEY, namespc INTEGER NOT NULL, foreign_key TEXT DEFAULT '' NOT NULL, token TEXT NOT NULL UNIQUE,
	timestamp INTEGER DEFAULT 0 NOT NULL) STRICT;
CREATE TABLE broadcast_secrets (chat_id INTEGER PRIMARY KEY NOT NULL, secret TEXT NOT NULL) STRICT;
CREATE TABLE smtp (id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE smtp2 (id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE smtp_mdns (msg_id INTEGER NOT NULL);
CREATE TABLE imap_send (id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE smtp_status_updates (msg_id INTEGER NOT NULL UNIQUE);
CREATE TABLE download (rfc724_mid TEXT PRIMARY KEY) STRICT;
CREATE TABLE available_post_msgs (rfc724_mid TEXT PRIMARY KEY) STRICT;
CREATE TABLE imap (id INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL, target TEXT NOT NULL) STRICT;
CREATE TABLE imap_markseen (id INTEGER PRIMARY KEY NOT NULL);
INSERT INTO config (keyname, value) VALUES ('dbversion', '167'), ('key_id', '2');
INSERT INTO keypairs (id, private_key, public_key) VALUES (1, x'01', x'11'), (2, x'02', x'12');
INSERT INTO public_keys (fingerprint, public_key) VALUES ('AA', x'21');
INSERT INTO tokens (namespc, token) VALUES (100, 'invite'), (110, 'auth');
INSERT INTO broadcast_secrets VALUES (12, 'secret');
`

// database makes an accounts folder whose dc.db has been made by SQL, and returns the folder and the file.
func database(t testing.TB, statements ...string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "a0000000-0000-4000-8000-000000000000", "dc.db")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range append([]string{"PRAGMA journal_mode = WAL", coreSchema}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%.80s: %v", s, err)
		}
	}
	return dir, file
}

func TestPendingCountsEveryQueue(t *testing.T) {
	for _, test := range []struct {
		statement string
		want      bot.Pending
		drained   bool
	}{
		{"SELECT 1", bot.Pending{}, true},
		{"INSERT INTO smtp VALUES (1)", bot.Pending{SMTP: 1}, false},
		{"INSERT INTO smtp2 VALUES (1), (2)", bot.Pending{SMTP: 2}, false},
		{"INSERT INTO smtp_mdns VALUES (1)", bot.Pending{SMTP: 1}, false},
		{"INSERT INTO imap_send VALUES (1)", bot.Pending{SMTP: 1}, false},
		{"INSERT INTO smtp_status_updates VALUES (1)", bot.Pending{Status: 1}, false},
		{"INSERT INTO download VALUES ('mid')", bot.Pending{Download: 1}, false},
		{"INSERT INTO available_post_msgs VALUES ('mid')", bot.Pending{PostMsgs: 1}, false},
		{"INSERT INTO imap VALUES (1, 'INBOX', 'INBOX')", bot.Pending{}, true},
		{"INSERT INTO imap VALUES (1, 'INBOX', '')", bot.Pending{IMAPQueue: 1}, true},
		{"INSERT INTO imap_markseen VALUES (1)", bot.Pending{IMAPQueue: 1}, true},
		{"DROP TABLE smtp2", bot.Pending{}, true}, // core 2.57 has none
	} {
		dir, _ := database(t, test.statement)
		p, err := reader(t, dir).Pending(t.Context())
		if err != nil || p != test.want || p.Drained() != test.drained {
			t.Errorf("%s: %+v, drained %v, %v; want %+v, %v", test.statement, p, p.Drained(), err, test.want, test.drained)
		}
	}
}

func TestState(t *testing.T) {
	dir, _ := database(t)
	s, err := reader(t, dir).State(t.Context())
	want := bot.AccountState{
		Schema: 167, Readable: true,
		SelfKeys:   [][]byte{{2}, {1}}, // config.key_id names the second: it comes first
		PublicKeys: [][]byte{{0x21}}, InviteNumbers: []string{"invite"}, AuthTokens: []string{"auth"}, BroadcastSecrets: []string{"secret"},
	}
	if err != nil || fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("got %+v, %v; want %+v", s, err, want)
	}
}

// A schema that is not known is not read by guess.
func TestUnknownSchema(t *testing.T) {
	for _, test := range []struct {
		name, statement string
		pending         bool // can be counted
		readable        bool
		state           bool // can be read, in part
	}{
		{"newer", "UPDATE config SET value = '170' WHERE keyname = 'dbversion'", false, false, true},
		{"older", "UPDATE config SET value = '158' WHERE keyname = 'dbversion'", false, false, true},
		{"newer, a column renamed", "UPDATE config SET value = '170' WHERE keyname = 'dbversion'; ALTER TABLE public_keys RENAME COLUMN public_key TO key", false, false, true},
		{"no number", "DELETE FROM config", false, false, false},
		{"not a number", "UPDATE config SET value = 'x' WHERE keyname = 'dbversion'", false, false, true},
		{"a queue is missing", "DROP TABLE download", false, true, true},
		{"a list is missing", "DROP TABLE tokens", true, false, true},
		{"a column is missing", "ALTER TABLE tokens RENAME COLUMN namespc TO namespace", true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, _ := database(t, test.statement)
			r := reader(t, dir)
			if p, err := r.Pending(t.Context()); (err == nil) != test.pending {
				t.Errorf("pending %+v, %v", p, err)
			}
			s, err := r.State(t.Context())
			if (err == nil) != test.state || s.Readable != test.readable {
				t.Errorf("state %+v, %v", s, err)
			}
			if test.state && len(s.SelfKeys) != 2 {
				t.Errorf("what can be read is not there: %+v", s)
			}
		})
	}
}

func TestBoundsOfAState(t *testing.T) {
	const rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO "
	for _, test := range []struct {
		name, statement string
		readable        bool
		keys            int
	}{
		{"many contacts", fmt.Sprintf(rows, maxPublicKeys-1) + "public_keys (fingerprint, public_key) SELECT 'F' || i, zeroblob(600) FROM n", true, maxPublicKeys},
		{"too many contacts", fmt.Sprintf(rows, maxPublicKeys) + "public_keys (fingerprint, public_key) SELECT 'F' || i, zeroblob(600) FROM n", false, maxPublicKeys},
		{"a huge key is left out", "INSERT INTO public_keys (fingerprint, public_key) VALUES ('F', zeroblob(100000000))", true, 1},
		{"too many bytes: the small ones are there", fmt.Sprintf(rows, 300) + "public_keys (id, fingerprint, public_key) SELECT -i, 'F' || i, zeroblob(64000) FROM n", false, 1 + 8<<20/64000},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, _ := database(t, test.statement)
			s, err := reader(t, dir).State(t.Context())
			if err != nil || s.Readable != test.readable || len(s.PublicKeys) != test.keys {
				t.Fatalf("readable %v with %d keys, %v; want %v with %d", s.Readable, len(s.PublicKeys), err, test.readable, test.keys)
			}
			if !bytes.Equal(s.PublicKeys[0], []byte{0x21}) {
				t.Error("the small key is not the first")
			}
		})
	}
}

func TestTokensThatCoreNeverWritesAreLeftOut(t *testing.T) {
	dir, _ := database(t, "INSERT INTO tokens (namespc, token) VALUES (110, ''), (110, 'a b'), (110, 'a' || char(10)), (110, 'ä'), (110, printf('%.*c', 300, 'x')), (110, 'good')")
	s, err := reader(t, dir).State(t.Context())
	if err != nil || fmt.Sprint(s.AuthTokens) != "[good auth]" {
		t.Errorf("auth tokens %q, %v", s.AuthTokens, err)
	}
}

// A hostile core may leave a database that is none, or one that works against its reader.
func TestHostileDatabases(t *testing.T) {
	const endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n)"
	for _, test := range []struct {
		name      string
		statement string
		mangle    func(content []byte) []byte
	}{
		{"empty file", "", func([]byte) []byte { return nil }},
		{"random bytes", "", func([]byte) []byte { return bytes.Repeat([]byte("\x9d\x01ab"), 5000) }},
		{"cut off after the header", "", func(b []byte) []byte { return b[:100] }},
		{"cut off after two pages", "", func(b []byte) []byte { return b[:8192] }},
		{"pages overwritten", "", func(b []byte) []byte { return append(b[:4096:4096], bytes.Repeat([]byte{0xff}, len(b)-4096)...) }},
		{"an endless view for a table", "DROP TABLE smtp; CREATE VIEW smtp AS " + endless + " SELECT i AS id FROM n", nil},
		{"an endless view for the version", "DROP TABLE config; CREATE VIEW config AS " + endless + " SELECT 'other' || i AS keyname, '167' AS value FROM n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, file := database(t, test.statement)
			if test.mangle != nil {
				content, err := os.ReadFile(file)
				ok(t, err)
				ok(t, os.WriteFile(file, test.mangle(content), 0o600))
			}
			started := time.Now()
			if p, err := reader(t, dir).Pending(t.Context()); err == nil {
				t.Errorf("pending %+v without an error", p)
			}
			if took := time.Since(started); took > requestTime+2*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestDatabaseIsNotALink(t *testing.T) {
	dir, file := database(t)
	target := filepath.Join(t.TempDir(), "other.db")
	ok(t, os.Rename(file, target))
	ok(t, os.Symlink(target, file))
	if _, err := reader(t, dir).State(t.Context()); err == nil {
		t.Error("a link was followed")
	}
}

func TestServeAnswersBadRequests(t *testing.T) {
	dir, _ := database(t)
	var out bytes.Buffer
	in := `{"ask":"keys"}` + "\n" + `{"ask":` + "\n" + `{"ask":"pending"}` + "\n"
	ok(t, Serve(strings.NewReader(in), &out, dir))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := `{"pending":{"smtp":0,"smtp_status_updates":0,"download":0,"available_post_msgs":0,"imap":0}}`
	if len(lines) != 3 || !strings.HasPrefix(lines[0], `{"error":"`) || !strings.HasPrefix(lines[1], `{"error":"`) || lines[2] != want {
		t.Errorf("answers %q", lines)
	}
	if err := Serve(strings.NewReader(strings.Repeat("x", maxRequest+1)), &out, dir); err == nil {
		t.Error("a request without end was read")
	}
}

// FuzzDatabase overwrites a part of a database: Serve must answer, within its bounds, what the client takes or an error.
func FuzzDatabase(f *testing.F) {
	_, file := database(f)
	good, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(16), []byte{0xff, 0xff})
	f.Add(uint32(100), []byte{5, 0, 0, 0, 1})
	f.Add(uint32(4096), bytes.Repeat([]byte{0x0d, 0, 0, 0xff}, 30))
	f.Add(uint32(len(good)-40), bytes.Repeat([]byte{0x7f}, 40))
	f.Fuzz(func(t *testing.T, offset uint32, patch []byte) {
		dir := t.TempDir()
		ok(t, os.Mkdir(filepath.Join(dir, "account"), 0o700))
		content := bytes.Clone(good)
		copy(content[int(offset)%len(content):], patch)
		ok(t, os.WriteFile(filepath.Join(dir, "account", "dc.db"), content, 0o600))
		var out bytes.Buffer
		ok(t, Serve(strings.NewReader(`{"ask":"state"}`+"\n"+`{"ask":"pending"}`+"\n"), &out, dir))
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		if len(lines) != 2 {
			t.Fatalf("answers %q", lines)
		}
		checkParsed(t, lines[0])
		checkParsed(t, lines[1])
	})
}

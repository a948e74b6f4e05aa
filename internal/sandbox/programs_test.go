package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openCore finds the real deltachat-rpc-server.
func openCore(t testing.TB) *os.File {
	t.Helper()
	name := os.Getenv("MAYFLY_CORE")
	for dir, _ := os.Getwd(); name == "" && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			name = filepath.Join(dir, ".tools/bin/deltachat-rpc-server")
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err, "(run make setup)")
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// coreSpec is core's sandbox as a session has it: its account, and the program that reads it afterwards.
func coreSpec(t testing.TB) Spec {
	return Spec{
		Name: "core", Memory: 128 << 20, Pids: 64, Wall: 20 * time.Second,
		Dirs:   []Dir{{Path: "/account", Size: 16 << 20, Inodes: 1000, Writable: true}},
		Listen: []uint16{143, 587},
		Programs: []Program{
			{Name: "core", Binary: openCore(t), Profile: ProfileCore, Env: []string{"DC_ACCOUNTS_PATH=/account/accounts", "TMPDIR=/account"}},
			{Name: "reader", Builtin: "account-reader", Profile: ProfileWorker, Args: []string{"/account/accounts"}},
		},
	}
}

// rpc is the least JSON-RPC client that does.
type rpc struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Scanner
	id  int
}

func newRPC(t testing.TB, p Stdio) *rpc {
	out := bufio.NewScanner(p.Stdout)
	out.Buffer(nil, 1<<20)
	return &rpc{t: t, in: p.Stdin, out: out}
}

func (r *rpc) call(method string, params ...any) string {
	r.t.Helper()
	r.id++
	if params == nil {
		params = []any{}
	}
	if err := json.NewEncoder(r.in).Encode(map[string]any{"jsonrpc": "2.0", "id": r.id, "method": method, "params": params}); err != nil {
		r.t.Fatal(method, err)
	}
	for r.out.Scan() {
		var answer struct {
			ID            int
			Result, Error json.RawMessage
		}
		if err := json.Unmarshal(r.out.Bytes(), &answer); err == nil && answer.ID == r.id {
			return string(answer.Result) + string(answer.Error)
		}
	}
	r.t.Fatalf("%s: core is gone: %v", method, r.out.Err())
	return ""
}

func TestCoreWorksUnderItsProfile(t *testing.T) {
	s := open(t, coreSpec(t))
	for _, port := range []uint16{143, 587} {
		go serveMail(s.Listener(port), port == 143)
	}
	if err := s.Start("core"); err != nil {
		t.Fatal(err)
	}
	core := newRPC(t, s.Program("core"))
	if info := core.call("get_system_info"); !strings.Contains(info, "deltachat_core_version") {
		t.Fatal(info)
	}
	account := core.call("add_account")
	login := map[string]any{"addr": "bot@example.org", "password": "secret", "imapServer": "127.0.0.1", "imapPort": 143, "imapSecurity": "plain",
		"smtpServer": "127.0.0.1", "smtpPort": 587, "smtpSecurity": "plain", "certificateChecks": "acceptInvalidCertificates"}
	if got := core.call("add_or_update_transport", json.RawMessage(account), login); got != "null" {
		t.Fatal("configure: ", got)
	}
	if got := core.call("start_io", json.RawMessage(account)); got != "null" {
		t.Fatal("start_io: ", got)
	}
	if got := core.call("get_chat_securejoin_qr_code", json.RawMessage(account), nil); !strings.Contains(got, "https://i.delta.chat/#") {
		t.Fatal("invite: ", got)
	}
	readAccount(t, s)
	s.Program("core").Stdin.Close()
	if exit, err := s.Wait(t.Context(), "core"); err != nil || exit != (Exit{}) {
		why, _ := io.ReadAll(s.Program("core").Stderr)
		t.Errorf("core ended with %+v, %v: %s", exit, err, why)
	}
	checkAccount(t, s)
	if r, err := s.Close(); err != nil || r.Killed != "" {
		t.Errorf("result %+v, %v", r, err)
	}
}

// readAccount asks the account reader, while core lives.
func readAccount(t *testing.T, s *Sandbox) {
	t.Helper()
	if err := s.Start("reader"); err != nil {
		t.Fatal(err)
	}
	p := s.Program("reader")
	fmt.Fprintln(p.Stdin, `{"ask":"state"}`)
	line, err := bufio.NewReaderSize(p.Stdout, 1<<20).ReadString('\n')
	if err != nil || !strings.Contains(line, `"self_keys":["`) {
		why, _ := io.ReadAll(p.Stderr)
		t.Errorf("account reader: %v, %.300s %s", err, line, why)
	}
	p.Stdin.Close()
	if exit, err := s.Wait(t.Context(), "reader"); err != nil || exit != (Exit{}) {
		t.Errorf("account reader ended with %+v, %v", exit, err)
	}
}

func checkAccount(t *testing.T, s *Sandbox) {
	t.Helper()
	r, err := s.Collect("/account")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range unarchive(t, r) {
		found = found || strings.HasSuffix(e.name, "/dc.db") && strings.HasPrefix(e.body, "SQLite format 3")
	}
	if !found {
		t.Error("no dc.db has come out")
	}
}

// serveMail speaks as much IMAP or SMTP as core needs to be configured: every command succeeds.
func serveMail(l net.Listener, imap bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if imap {
				speakIMAP(c)
			} else {
				speakSMTP(c)
			}
		}()
	}
}

func speakIMAP(c net.Conn) {
	fmt.Fprint(c, "* OK ready\r\n")
	for sc := bufio.NewScanner(c); sc.Scan(); {
		tag, command, _ := strings.Cut(strings.ToUpper(sc.Text()), " ")
		switch word, _, _ := strings.Cut(command, " "); word {
		case "CAPABILITY":
			fmt.Fprint(c, "* CAPABILITY IMAP4rev1 IDLE\r\n")
		case "LIST":
			fmt.Fprint(c, "* LIST () \"/\" INBOX\r\n")
		case "SELECT":
			fmt.Fprint(c, "* 0 EXISTS\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 1]\r\n* OK [UIDNEXT 1]\r\n")
		case "IDLE":
			fmt.Fprint(c, "+ idling\r\n")
			continue
		}
		fmt.Fprintf(c, "%s OK done\r\n", tag)
	}
}

func speakSMTP(c net.Conn) {
	fmt.Fprint(c, "220 ready\r\n")
	for sc := bufio.NewScanner(c); sc.Scan(); {
		switch word, _, _ := strings.Cut(strings.ToUpper(sc.Text()), " "); word {
		case "EHLO":
			fmt.Fprint(c, "250-localhost\r\n250 AUTH PLAIN LOGIN\r\n")
		case "AUTH":
			fmt.Fprint(c, "235 welcome\r\n")
		default:
			fmt.Fprint(c, "250 done\r\n")
		}
	}
}

// TestWorkerComesUp shows that QuickJS starts under the worker's profile: the worker says that it is ready.
func TestWorkerComesUp(t *testing.T) {
	spec := workerSpec()
	s := open(t, spec)
	if err := s.PutFile("/bundle/main.js", 64, strings.NewReader(fmt.Sprintf("%-64s", "export default { async message() { return 'hi' } }"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("worker"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(s.Program("worker").Stdout).ReadString('\n')
	if err != nil || !strings.Contains(line, "ready") {
		why, _ := io.ReadAll(s.Program("worker").Stderr)
		t.Fatalf("got %q, %v %s", line, err, why)
	}
}

func workerSpec() Spec {
	return Spec{
		Name: "worker", Memory: 128 << 20, Pids: 64, Wall: 20 * time.Second,
		Dirs: []Dir{
			{Path: "/bundle", Size: 1 << 20, Inodes: 100},
			{Path: "/attachments", Size: 1 << 20, Inodes: 100},
			{Path: "/storage", Size: 1 << 20, Inodes: 100, Writable: true},
			{Path: "/tmp", Size: 1 << 20, Inodes: 100, Writable: true},
		},
		Programs: []Program{{Name: "worker", Builtin: "worker", Profile: ProfileWorker}},
	}
}

// BenchmarkFirstByte is the time from Open to the first byte of the worker, and to the end of Close.
func BenchmarkFirstByte(b *testing.B) {
	var open, first time.Duration
	for b.Loop() {
		begun := time.Now()
		s, err := broker.Client().Open(context.Background(), workerSpec())
		if err != nil {
			b.Fatal(err)
		}
		open += time.Since(begun)
		if err := s.Start("worker"); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Program("worker").Stdout.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		first += time.Since(begun)
		if _, err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(open.Seconds()*1000/float64(b.N), "open-ms")
	b.ReportMetric(first.Seconds()*1000/float64(b.N), "first-byte-ms")
}

package mailbox

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

const (
	user = "dice@example.org"
	pass = "correct horse"
)

// relay is a real IMAP server with one account.
type relay struct {
	addr  string
	user  *imapmemserver.User
	caps  imap.CapSet
	delim rune
	tls   *tls.Config // for STARTTLS

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, configure ...func(*relay)) *relay {
	t.Helper()
	r := &relay{
		user: imapmemserver.NewUser(user, pass),
		caps: imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIdle: {}, imap.CapUIDPlus: {}},
	}
	if err := r.user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range configure {
		f(r)
	}
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &relaySession{relay: r}, nil, nil
		},
		Caps: r.caps, TLSConfig: r.tls, InsecureAuth: r.tls == nil, Logger: log.New(io.Discard, "", 0),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	go server.Serve(&recordingListener{l, r})
	t.Cleanup(func() { server.Close() })
	return r
}

// relaySession is a session whose folders have the relay's delimiter.
type relaySession struct {
	*imapmemserver.UserSession
	relay *relay
}

func (s *relaySession) Login(username, password string) error {
	if err := s.relay.user.Login(username, password); err != nil {
		return err
	}
	s.UserSession = imapmemserver.NewUserSession(s.relay.user)
	return nil
}

func (s *relaySession) List(w *imapserver.ListWriter, ref string, patterns []string, options *imap.ListOptions) error {
	if len(patterns) == 0 && s.relay.delim != 0 {
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: s.relay.delim})
	}
	return s.UserSession.List(w, ref, patterns, options)
}

type recordingListener struct {
	net.Listener
	relay *relay
}

func (l *recordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.relay.mu.Lock()
		l.relay.conns = append(l.relay.conns, conn)
		l.relay.mu.Unlock()
	}
	return conn, err
}

// drop closes all connections from the server's side.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

func (r *relay) deliver(t *testing.T, folder string, mails ...string) {
	t.Helper()
	for _, mail := range mails {
		if _, err := r.user.Append(folder, literal{strings.NewReader(mail)}, &imap.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

type literal struct{ *strings.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

func (r *relay) dial(ctx context.Context) (*Client, error) {
	return Dial(ctx, Server{Addr: r.addr, TLS: Plain, Timeout: 5 * time.Second}, Login{user, pass})
}

func (r *relay) client(t *testing.T, folder string) *Client {
	t.Helper()
	c, err := r.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if folder != "" {
		if _, err := c.Select(t.Context(), folder); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func uids(messages []Message) []uint32 {
	var list []uint32
	for _, m := range messages {
		list = append(list, m.UID)
	}
	return list
}

func TestListAndFetch(t *testing.T) {
	r := newRelay(t)
	r.deliver(t, "INBOX", "Subject: 1\r\n\r\none", "Subject: 2\r\n\r\ntwo", "Subject: 3\r\n\r\nthree")
	c := r.client(t, "")
	status, err := c.Select(t.Context(), "INBOX")
	if err != nil || status.UIDNext != 4 || status.Messages != 3 || status.UIDValidity == 0 {
		t.Fatalf("got %+v, %v", status, err)
	}
	for _, test := range []struct {
		after uint32
		limit int
		want  []uint32
	}{
		{0, 100, []uint32{1, 2, 3}},
		{0, 2, []uint32{1, 2}},
		{2, 100, []uint32{3}},
		{3, 100, nil}, // "4:*" would find the last one again
		{^uint32(0), 100, nil},
	} {
		list, err := c.List(t.Context(), test.after, test.limit)
		if err != nil || !slices.Equal(uids(list), test.want) {
			t.Errorf("after %d, at most %d: got %v, %v, want %v", test.after, test.limit, uids(list), err, test.want)
		}
	}
	list, err := c.List(t.Context(), 1, 1)
	if err != nil || len(list) != 1 || list[0].Size != int64(len("Subject: 2\r\n\r\ntwo")) || list[0].Seen {
		t.Errorf("got %+v, %v", list, err)
	}
	mail, err := c.Fetch(t.Context(), 2, 1000)
	if err != nil || string(mail) != "Subject: 2\r\n\r\ntwo" {
		t.Errorf("got %q, %v", mail, err)
	}
	if list, _ := c.List(t.Context(), 1, 1); list[0].Seen {
		t.Error("fetching marked the mail as read")
	}
}

func TestTenThousandMailsWait(t *testing.T) {
	r := newRelay(t)
	for range 10_000 {
		r.deliver(t, "INBOX", "x\r\n\r\n")
	}
	c := r.client(t, "INBOX")
	first, err := c.List(t.Context(), 0, 50)
	if err != nil || len(first) != 50 || first[49].UID != 50 {
		t.Fatalf("got %d, %v", len(first), err)
	}
}

func TestFetchSizeLimit(t *testing.T) {
	r := newRelay(t)
	mail := "Subject: x\r\n\r\n" + strings.Repeat("y", 1<<20)
	r.deliver(t, "INBOX", mail, "small\r\n\r\n")
	c := r.client(t, "INBOX")
	if _, err := c.Fetch(t.Context(), 1, int64(len(mail))-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if got, err := c.Fetch(t.Context(), 1, int64(len(mail))); err != nil || !bytes.Equal(got, []byte(mail)) {
		t.Errorf("a mail of exactly the limit: %d bytes, %v", len(got), err)
	}
	if _, err := c.Fetch(t.Context(), 2, 100); err != nil {
		t.Errorf("the connection is not usable after a large mail: %v", err)
	}
}

func TestVanishedMail(t *testing.T) {
	r := newRelay(t)
	r.deliver(t, "INBOX", "1\r\n\r\n", "2\r\n\r\n", "3\r\n\r\n")
	c, other := r.client(t, "INBOX"), r.client(t, "INBOX")
	list, err := c.List(t.Context(), 0, 10)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if err := other.Delete(t.Context(), 1, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(t.Context(), 1, 100); !errors.Is(err, ErrVanished) {
		t.Errorf("fetch: got %v", err)
	}
	if err := c.Delete(t.Context(), 1, 99); err != nil {
		t.Errorf("delete: got %v", err)
	}
	if list, err := c.List(t.Context(), 0, 10); err != nil || !slices.Equal(uids(list), []uint32{3}) {
		t.Errorf("got %v, %v", uids(list), err)
	}
	if _, err := c.Fetch(t.Context(), 3, 100); err != nil {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	for name, caps := range map[string][]imap.Cap{"UIDPLUS": {imap.CapUIDPlus}, "without": {}} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, func(r *relay) {
				r.caps = imap.CapSet{imap.CapIMAP4rev1: {}}
				for _, c := range caps {
					r.caps[c] = struct{}{}
				}
			})
			r.deliver(t, "INBOX", "1\r\n\r\n", "2\r\n\r\n", "3\r\n\r\n")
			c := r.client(t, "INBOX")
			if err := c.Delete(t.Context(), 1, 3); err != nil {
				t.Fatal(err)
			}
			if list, err := c.List(t.Context(), 0, 10); err != nil || !slices.Equal(uids(list), []uint32{2}) {
				t.Errorf("left %v, %v", uids(list), err)
			}
		})
	}
}

func TestAppendMakesTheFolder(t *testing.T) {
	for _, delim := range []rune{'/', '.'} {
		r := newRelay(t, func(r *relay) { r.delim = delim })
		c := r.client(t, "INBOX")
		mail := []byte("Subject: x\r\n\r\n" + strings.Repeat("y", 10_000)) // over 4096: a synchronising literal
		for range 2 {
			if err := c.Append(t.Context(), "Bot/Status", mail); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.user.Status("Bot"+string(delim)+"Status", &imap.StatusOptions{}); err != nil {
			t.Errorf("the folder has another name than Bot%cStatus: %v", delim, err)
		}
		status, err := c.Select(t.Context(), "Bot/Status")
		if err != nil || status.Messages != 2 {
			t.Errorf("delimiter %c: %+v, %v", delim, status, err)
		}
		got, err := c.Fetch(t.Context(), 1, 20_000)
		if err != nil || !bytes.Equal(got, mail) {
			t.Errorf("delimiter %c: %d bytes, %v", delim, len(got), err)
		}
	}
}

func TestFolders(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "")
	if _, err := c.Select(t.Context(), "Bot"); !errors.Is(err, ErrNoFolder) {
		t.Errorf("select: got %v", err)
	}
	if there, err := c.Exists(t.Context(), "Bot"); there || err != nil {
		t.Errorf("got %v, %v", there, err)
	}
	for range 2 {
		if err := c.Create(t.Context(), "Bot"); err != nil {
			t.Error(err)
		}
	}
	if there, err := c.Exists(t.Context(), "Bot"); !there || err != nil {
		t.Errorf("got %v, %v", there, err)
	}
}

func TestChangedUIDValidityShows(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "")
	var seen []uint32
	for range 2 {
		if err := c.Create(t.Context(), "Bot"); err != nil {
			t.Fatal(err)
		}
		status, err := c.Select(t.Context(), "Bot")
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, status.UIDValidity)
		if err := r.user.Delete("Bot"); err != nil {
			t.Fatal(err)
		}
	}
	if seen[0] == seen[1] {
		t.Errorf("UIDVALIDITY %d twice", seen[0])
	}
}

func TestLoginRefused(t *testing.T) {
	r := newRelay(t)
	_, err := Dial(t.Context(), Server{Addr: r.addr, TLS: Plain}, Login{user, "wrong"})
	if !errors.Is(err, ErrLogin) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v", err)
	}
}

func TestPlainIsForLoopbackOnly(t *testing.T) {
	c := &Client{}
	for addr, refused := range map[string]bool{"127.0.0.1": false, "127.9.9.9": false, "::1": false, "192.0.2.1": true, "2001:db8::1": true} {
		theirs, ours := net.Pipe()
		err := c.protect(t.Context(), remoteConn{ours, addr}, Plain, nil)
		if errors.Is(err, ErrInsecure) != refused {
			t.Errorf("%s: got %v", addr, err)
		}
		theirs.Close()
	}
}

type remoteConn struct {
	net.Conn
	addr string
}

func (c remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.addr)} }

func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLSIsVerified(t *testing.T) {
	cert, pool := certificate(t, "relay.example.org")
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	starttls := newRelay(t, func(r *relay) { r.tls = config })
	implicit := newRelay(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go proxy(l, implicit.addr)
	for mode, addr := range map[TLSMode]string{StartTLS: starttls.addr, TLS: l.Addr().String()} {
		good := Server{Addr: addr, TLS: mode, ServerName: "relay.example.org", RootCAs: pool, Timeout: 5 * time.Second}
		c, err := Dial(t.Context(), good, Login{user, pass})
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if _, err := c.Select(t.Context(), "INBOX"); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		c.Close()
		otherName, otherCA := good, good
		otherName.ServerName, otherCA.RootCAs = "other.example.org", x509.NewCertPool()
		for _, server := range []Server{otherName, otherCA} {
			if _, err := Dial(t.Context(), server, Login{user, pass}); !errors.As(err, new(*tls.CertificateVerificationError)) {
				t.Errorf("%s: got %v", mode, err)
			}
		}
	}
}

func proxy(l net.Listener, addr string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", addr)
		if err != nil {
			in.Close()
			continue
		}
		go func() { io.Copy(out, in); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}
}

func TestStartTLSNotOffered(t *testing.T) {
	r := newRelay(t)
	_, err := Dial(t.Context(), Server{Addr: r.addr, TLS: StartTLS, Timeout: 5 * time.Second}, Login{user, pass})
	if err == nil {
		t.Error("logged in without TLS")
	}
}

// script is a server that says what it is told to, and then nothing more.
func script(t *testing.T, say func(conn net.Conn)) Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				say(conn)
				io.Copy(io.Discard, conn)
			})
		}
	})
	return Server{Addr: l.Addr().String(), TLS: Plain, Timeout: 300 * time.Millisecond}
}

func TestSilentServer(t *testing.T) {
	for name, greeting := range map[string]string{"no greeting": "", "no answer": "* OK [CAPABILITY IMAP4rev1] hello\r\n"} {
		for _, mode := range []TLSMode{Plain, StartTLS, TLS} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				server := script(t, func(conn net.Conn) { io.WriteString(conn, greeting) })
				server.TLS = mode
				started := time.Now()
				_, err := Dial(t.Context(), server, Login{user, pass})
				if err == nil || time.Since(started) > 5*time.Second {
					t.Errorf("got %v after %v", err, time.Since(started))
				}
				if mode == Plain && !errors.Is(err, ErrSilent) {
					t.Errorf("got %v, want ErrSilent", err)
				}
			})
		}
	}
}

func TestFloodingServer(t *testing.T) {
	server := script(t, func(conn net.Conn) {
		io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hello ")
		for range 100 << 20 / (64 << 10) {
			if _, err := conn.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				return
			}
		}
	})
	server.Timeout = 10 * time.Second
	if _, err := Dial(t.Context(), server, Login{user, pass}); !errors.Is(err, ErrFlood) {
		t.Errorf("got %v", err)
	}
}

func TestContextEndsAnOperation(t *testing.T) {
	server := script(t, func(conn net.Conn) { io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hello\r\n") })
	server.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := Dial(ctx, server, Login{user, pass}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDroppedConnection(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "INBOX")
	r.drop()
	if _, err := c.List(t.Context(), 0, 10); err == nil {
		t.Error("no error")
	}
	c = r.client(t, "INBOX")
	time.AfterFunc(50*time.Millisecond, r.drop)
	if err := c.Idle(t.Context()); !errors.Is(err, ErrEnded) || err.Error() != "idle: the connection has ended" {
		t.Errorf("idle: got %v, want ErrEnded, in one line", err)
	}
}

// wakes lets c idle and delivers mail until it wakes: what arrives in the moment before IDLE is in force may be told only at the
// next command, with some servers.
func wakes(t *testing.T, r *relay, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Idle(ctx) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("idle: %v", err)
			}
			return
		case <-time.After(20 * time.Millisecond):
			r.deliver(t, "INBOX", "x\r\n\r\n")
		}
	}
}

func TestIdleWakes(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "INBOX")
	wakes(t, r, c)
	if list, err := c.List(t.Context(), 0, 10); err != nil || len(list) == 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestPollWakesWithoutIdle(t *testing.T) {
	r := newRelay(t, func(r *relay) { delete(r.caps, imap.CapIdle) })
	c := r.client(t, "INBOX")
	c.poll = 10 * time.Millisecond
	wakes(t, r, c)
}

// What arrives between the last look and Idle wakes at once.
func TestNothingIsMissedBeforeIdle(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "INBOX")
	r.deliver(t, "INBOX", "x\r\n\r\n")
	if _, err := c.List(t.Context(), 1, 10); err != nil { // the server tells of the new mail here
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := c.Idle(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestDeletionsWakeNobody(t *testing.T) {
	r := newRelay(t)
	r.deliver(t, "INBOX", "x\r\n\r\n")
	c, other := r.client(t, "INBOX"), r.client(t, "INBOX")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	time.AfterFunc(50*time.Millisecond, func() { other.Delete(ctx, 1) })
	if err := c.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestClientIsGoodAfterIdleWasCancelled(t *testing.T) {
	r := newRelay(t)
	c := r.client(t, "INBOX")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.List(t.Context(), 0, 10); err != nil {
		t.Error(err)
	}
}

// IDLE is renewed, and the renewal finds out that the server has gone silent.
func TestSilentServerInIdle(t *testing.T) {
	var idles atomic.Int32
	server := script(t, func(conn net.Conn) {
		io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1 IDLE] hello\r\n")
		var idling string
		answer(conn, func(tag, command string) string {
			switch command {
			case "LOGIN":
				return tag + " OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"
			case "IDLE":
				idling = tag
				if idles.Add(1) > 2 {
					return ""
				}
				return "+ idling\r\n"
			case "DONE":
				return idling + " OK done\r\n"
			default:
				return tag + " OK\r\n"
			}
		})
	})
	c, err := Dial(t.Context(), server, Login{user, pass})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.round = 50 * time.Millisecond
	if err := c.Idle(t.Context()); !errors.Is(err, ErrSilent) || idles.Load() != 3 {
		t.Errorf("got %v after %d IDLE commands", err, idles.Load())
	}
}

func answer(conn net.Conn, reply func(tag, command string) string) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		fields := strings.Fields(string(buf[:n]))
		if len(fields) == 1 {
			fields = append(fields, fields[0])
		}
		if _, err := io.WriteString(conn, reply(fields[0], fields[1])); err != nil {
			return
		}
	}
}

func quickWatch(t *testing.T, dial func(context.Context) (*Client, error), folder string, configure ...func(*watcher)) (changes chan struct{}, stop func()) {
	t.Helper()
	changes = make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	w := watcher{dial: dial, folder: folder, changed: func() { changes <- struct{}{} }, log: slog.New(slog.DiscardHandler),
		first: 10 * time.Millisecond, last: 80 * time.Millisecond, stable: time.Minute, renew: RenewAfter}
	for _, f := range configure {
		f(&w)
	}
	wg.Go(func() { w.run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return changes, stop
}

func next(t *testing.T, changes chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(5 * time.Second):
		t.Fatal("no change was told")
	}
}

func TestWatchReconnects(t *testing.T) {
	r := newRelay(t)
	changes, stop := quickWatch(t, r.dial, "INBOX")
	next(t, changes) // connected
	r.drop()
	next(t, changes) // connected again
	deadline := time.After(5 * time.Second)
	for woken := false; !woken; {
		r.deliver(t, "INBOX", "x\r\n\r\n")
		select {
		case <-changes:
			woken = true
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("new mail was not told")
		}
	}
	stop() // ends at once, or the test does not
}

// TestBlackHoleInIdle loses a connection in IDLE as a firewall does that has forgotten it: no side is told. The renewal of IDLE
// finds out, and what came meanwhile is told.
func TestBlackHoleInIdle(t *testing.T) {
	r := newRelay(t)
	addr, silence := blackHole(t, r.addr)
	var dials atomic.Int32
	dial := func(ctx context.Context) (*Client, error) {
		dials.Add(1)
		c, err := Dial(ctx, Server{Addr: addr, TLS: Plain, Timeout: time.Second}, Login{user, pass})
		if err == nil {
			c.round = 50 * time.Millisecond
		}
		return c, err
	}
	var log bytes.Buffer
	changes, stop := quickWatch(t, dial, "INBOX", func(w *watcher) { w.log = slog.New(slog.NewTextHandler(&log, nil)) })
	next(t, changes)
	silence()
	r.deliver(t, "INBOX", "x\r\n\r\n")
	next(t, changes)
	r.deliver(t, "INBOX", "y\r\n\r\n")
	next(t, changes) // and it waits again
	stop()
	if n := dials.Load(); n != 2 {
		t.Errorf("dialled %d times, want once again", n)
	}
	if !strings.Contains(log.String(), "watching was interrupted") || !strings.Contains(log.String(), "the server does not answer within 1s") {
		t.Errorf("the log does not say what happened:\n%s", log.String())
	}
}

// blackHole forwards connections to a server until silence is called; from then on those that are open lead nowhere.
func blackHole(t *testing.T, server string) (addr string, silence func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var open []*mute
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				return
			}
			there, back := &mute{Conn: far}, &mute{Conn: near}
			mu.Lock()
			open = append(open, there, back)
			mu.Unlock()
			go func() { io.Copy(there, near); far.Close() }()
			go func() { io.Copy(back, far); near.Close() }()
		}
	}()
	return l.Addr().String(), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range open {
			m.silent.Store(true)
		}
	}
}

// mute swallows what is written to it once it is silent.
type mute struct {
	net.Conn
	silent atomic.Bool
}

func (m *mute) Write(b []byte) (int, error) {
	if m.silent.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

func TestWatchTellsOfAMissingFolder(t *testing.T) {
	r := newRelay(t)
	changes, _ := quickWatch(t, r.dial, "Bot")
	next(t, changes)
	if err := r.user.Create("Bot", nil); err != nil {
		t.Fatal(err)
	}
	next(t, changes)
}

// A folder that is removed and made again while somebody idles in it is noticed, though the server does not tell.
func TestWatchNoticesARemovedFolder(t *testing.T) {
	r := newRelay(t)
	must(t, r.user.Create("Bot", nil))
	var dials atomic.Int32
	dial := func(ctx context.Context) (*Client, error) {
		dials.Add(1)
		c, err := r.dial(ctx)
		if err == nil {
			c.round = 20 * time.Millisecond
		}
		return c, err
	}
	changes, _ := quickWatch(t, dial, "Bot")
	next(t, changes)
	must(t, r.user.Delete("Bot"))
	next(t, changes) // it is missing
	select {
	case <-changes:
		t.Error("the same missing folder was told twice")
	case <-time.After(300 * time.Millisecond):
	}
	if there, err := r.client(t, "").Exists(t.Context(), "Bot"); err != nil || there {
		t.Fatalf("the folder is there: %v, %v", there, err)
	}
	must(t, r.user.Create("Bot", nil))
	next(t, changes) // it is there again
	r.deliver(t, "Bot", "x\r\n\r\n")
	next(t, changes)
	if n := dials.Load(); n != 1 {
		t.Errorf("dialled %d times, want one connection for all of it", n)
	}
}

// A quiet folder is no news, however often it is looked at.
func TestWatchIsQuiet(t *testing.T) {
	r := newRelay(t)
	changes, _ := quickWatch(t, func(ctx context.Context) (*Client, error) {
		c, err := r.dial(ctx)
		if err == nil {
			c.round = 10 * time.Millisecond
		}
		return c, err
	}, "INBOX")
	next(t, changes)
	select {
	case <-changes:
		t.Error("a change of nothing was told")
	case <-time.After(300 * time.Millisecond):
	}
}

// Relays delete accounts that nobody logs in to: an account that is watched is logged in to again and again, whether its
// folder is quiet, busy or missing.
func TestWatchLogsInAgain(t *testing.T) {
	for name, folder := range map[string]string{"a folder": "INBOX", "no folder": "Bot"} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			var dials atomic.Int32
			dial := func(ctx context.Context) (*Client, error) {
				dials.Add(1)
				c, err := r.dial(ctx)
				if err == nil {
					c.round = 10 * time.Millisecond
				}
				return c, err
			}
			started := time.Now()
			_, stop := quickWatch(t, dial, folder, func(w *watcher) { w.renew = 100 * time.Millisecond })
			for dials.Load() < 4 {
				if time.Since(started) > 5*time.Second {
					t.Fatalf("%d logins within 5 s", dials.Load())
				}
				time.Sleep(5 * time.Millisecond)
			}
			stop()
			if took := time.Since(started); took < 150*time.Millisecond { // three times at least half of it
				t.Errorf("4 logins within %v: it does not wait", took)
			}
		})
	}
	if RenewAfter > 7*24*time.Hour {
		t.Errorf("RenewAfter is %v, and every account is to be logged in to once a week", RenewAfter)
	}
}

func TestFolderList(t *testing.T) {
	r := newRelay(t, func(r *relay) { r.delim = '.' })
	must(t, r.user.Create("Bot", nil))
	c := r.client(t, "INBOX")
	names, err := c.Folders(t.Context())
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"Bot", "INBOX"}) {
		t.Errorf("%q, %v", names, err)
	}
	validity, err := c.UIDValidity(t.Context(), "Bot")
	status, err2 := c.Select(t.Context(), "Bot")
	if err != nil || err2 != nil || validity == 0 || validity != status.UIDValidity {
		t.Errorf("UIDVALIDITY %d, %v, %v; on SELECT it is %d", validity, err, err2, status.UIDValidity)
	}
	if _, err := c.UIDValidity(t.Context(), "Nowhere"); !errors.Is(err, ErrNoFolder) {
		t.Errorf("got %v", err)
	}
}

// What other servers answer to LIST: another delimiter, folders that are only names, and a list that breaks off.
func TestOtherServersFolderLists(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		want   []string
		fails  bool
	}{
		"names only": {"* LIST () \".\" INBOX\r\n* LIST (\\NoSelect) \".\" Bot\r\n* LIST () \".\" Bot.Status\r\n* LIST (\\NonExistent) \".\" Gone\r\nTAG OK done\r\n",
			[]string{"INBOX", "Bot/Status"}, false},
		"breaks off": {"* LIST () \"/\" INBOX\r\nTAG NO out of order\r\n", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			server := script(t, func(conn net.Conn) {
				io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] ready\r\n")
				answer(conn, func(tag, command string) string {
					if command == "LIST" {
						return strings.ReplaceAll(test.answer, "TAG", tag)
					}
					return tag + " OK done\r\n"
				})
			})
			c, err := Dial(t.Context(), server, Login{user, pass})
			must(t, err)
			defer c.Close()
			names, err := c.Folders(t.Context())
			if (err != nil) != test.fails || !test.fails && !slices.Equal(names, test.want) {
				t.Errorf("got %q, %v", names, err)
			}
		})
	}
}

func TestWatchBacksOff(t *testing.T) {
	var dials atomic.Int32
	refuse := func(context.Context) (*Client, error) { dials.Add(1); return nil, errors.New("refused") }
	_, stop := quickWatch(t, refuse, "INBOX")
	time.Sleep(500 * time.Millisecond)
	stop()
	// 10, 20, 40, 80, 80, … ms, of which up to half may be taken off: at most 5+10+20 ms, then one each 40 ms.
	if n := dials.Load(); n < 4 || n > 16 {
		t.Errorf("dialled %d times in 500 ms", n)
	}
}

// Servers differ in how they say that something is not there.
func TestOtherServersWords(t *testing.T) {
	server := script(t, func(conn net.Conn) {
		io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hello\r\n")
		answer(conn, func(tag, command string) string {
			switch command {
			case "LOGIN":
				return tag + " OK [CAPABILITY IMAP4rev1] in\r\n"
			case "SELECT":
				return tag + " NO Mailbox doesn't exist\r\n"
			case "LIST":
				return tag + " OK\r\n"
			case "UID":
				return tag + " NO [EXPUNGEISSUED] Some of the messages no longer exist\r\n"
			default:
				return tag + " BAD\r\n"
			}
		})
	})
	server.Timeout = 5 * time.Second
	c, err := Dial(t.Context(), server, Login{user, pass})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Select(t.Context(), "Bot"); !errors.Is(err, ErrNoFolder) {
		t.Errorf("select: got %v", err)
	}
	if _, err := c.Fetch(t.Context(), 1, 100); !errors.Is(err, ErrVanished) {
		t.Errorf("fetch: got %v", err)
	}
}

// A refusal for another reason is not a missing folder: whoever mistakes it for one may uninstall a bot.
func TestRefusedSelectIsNotAMissingFolder(t *testing.T) {
	server := script(t, func(conn net.Conn) {
		io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hello\r\n")
		answer(conn, func(tag, command string) string {
			switch command {
			case "LOGIN":
				return tag + " OK [CAPABILITY IMAP4rev1] in\r\n"
			case "SELECT":
				return tag + " NO [SERVERBUG] Internal error\r\n"
			default:
				return "* LIST () \"/\" Bot\r\n" + tag + " OK\r\n"
			}
		})
	})
	server.Timeout = 5 * time.Second
	c, err := Dial(t.Context(), server, Login{user, pass})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Select(t.Context(), "Bot"); err == nil || errors.Is(err, ErrNoFolder) {
		t.Errorf("got %v", err)
	}
}

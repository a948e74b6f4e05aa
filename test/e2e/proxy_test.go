package e2e

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy stands between the host and the relay, on loopback, and has the relay's moods. Users go past it.
type proxy struct {
	t            *testing.T
	addr, target string

	mu       sync.Mutex
	listener net.Listener // nil: the relay is away, connections are refused
	links    map[*link]bool
	dials    int
	sent     func([]byte) []byte // what becomes of bytes that the host sends; nil: nothing
	work     sync.WaitGroup
}

// link is one connection of the host's.
type link struct {
	near, far net.Conn
	idling    bool // the last that the host sent was IDLE
	silent    bool // neither side hears of the other, and neither is told
}

// newProxy listens on an address of its own, so that its port is still free when the relay comes back.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{t: t, addr: "127.0.7.1:0", target: target, links: map[*link]bool{}}
	p.back()
	t.Cleanup(func() {
		p.away()
		p.work.Wait()
	})
	return p
}

// back takes connections, the first time and after away.
func (p *proxy) back() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr, p.listener = l.Addr().String(), l
	p.work.Go(func() { p.accept(l) })
}

// away ends every connection and refuses new ones.
func (p *proxy) away() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.cut()
}

// cut ends every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.near.Close()
		l.far.Close()
	}
}

// rewrite has f see, and change, what the host sends from now on.
func (p *proxy) rewrite(f func([]byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = f
}

// idling counts the connections that wait in IDLE, and makes them silent if it is told to.
func (p *proxy) idling(silence bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if l.idling {
			n++
			l.silent = l.silent || silence
		}
	}
	return n
}

// dialled is how many connections the host has made.
func (p *proxy) dialled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

func (p *proxy) accept(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			near.Close()
			continue
		}
		k := &link{near: near, far: far}
		p.mu.Lock()
		p.dials++
		p.links[k] = true
		if p.listener != l { // it went away between the two
			near.Close()
			far.Close()
		}
		p.mu.Unlock()
		p.work.Go(func() { p.pump(k, far, near, true) })
		p.work.Go(func() { p.pump(k, near, far, false) })
	}
}

func (p *proxy) pump(k *link, to io.Writer, from io.Reader, host bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		if data := p.pass(k, buf[:n], host); len(data) > 0 {
			if _, err := to.Write(data); err != nil {
				break
			}
		}
	}
	k.near.Close()
	k.far.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, k)
}

// pass returns what is passed on of data.
func (p *proxy) pass(k *link, data []byte, host bool) []byte {
	p.mu.Lock()
	silent, sent := k.silent, p.sent
	if host && !silent {
		k.idling = bytes.HasSuffix(data, []byte(" IDLE\r\n"))
	}
	p.mu.Unlock()
	switch {
	case silent:
		return nil
	case host && sent != nil:
		return sent(data)
	}
	return data
}

// behindProxies has the host reach the relay through proxies, and adds a line to the section [relay].
func (w *world) behindProxies(line string) (imap, smtp *proxy) {
	w.t.Helper()
	imap, smtp = newProxy(w.t, w.imap), newProxy(w.t, w.smtp)
	w.settings = strings.NewReplacer(
		`imap = "`+w.imap+`"`, `imap = "`+imap.addr+`"`,
		`smtp = "`+w.smtp+`"`, `smtp = "`+smtp.addr+`"`,
		"[relay]\n", "[relay]\n"+line+"\n")
	return imap, smtp
}

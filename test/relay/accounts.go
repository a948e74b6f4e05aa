package relay

import (
	"bufio"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// accounts is what a relay's doveauth is: it answers Dovecot's lookups in the dict protocol (Dovecot's src/lib-dict/dict-client.h,
// version 2 and later), and makes an account when a login asks for one that does not exist. A request is a line: a command's letter and
// fields with tabs between them. Hello (H) is not answered; a lookup (L, of a key) is answered with O and the value, or N.
type accounts struct {
	domain, folder string
	listener       net.Listener
	serving        sync.WaitGroup

	mu     sync.Mutex
	hashes map[string]string // as Dovecot writes them, by address
	conns  map[net.Conn]bool
}

// serveAccounts answers lookups on a unix socket. The accounts' homes are below folder.
func serveAccounts(path, domain, folder string) (*accounts, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	a := &accounts{domain: domain, folder: folder, listener: listener, hashes: map[string]string{}, conns: map[net.Conn]bool{}}
	a.serving.Go(a.serve)
	return a, os.Chmod(path, 0o666) // Dovecot's auth process is neither root nor us
}

func (a *accounts) serve() {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.conns[conn] = true
		a.mu.Unlock()
		a.serving.Go(func() { a.answer(conn) })
	}
}

func (a *accounts) close() error {
	err := a.listener.Close()
	a.mu.Lock()
	for conn := range a.conns {
		err = errors.Join(err, conn.Close())
	}
	a.mu.Unlock()
	a.serving.Wait()
	return err
}

func (a *accounts) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.hashes)
}

func (a *accounts) answer(conn net.Conn) {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.conns[conn] {
			delete(a.conns, conn)
			conn.Close()
		}
	}()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		command, found := strings.CutPrefix(lines.Text(), "L")
		if !found {
			continue
		}
		key, _, _ := strings.Cut(command, "\t")
		if _, err := fmt.Fprintf(conn, "%s\n", a.lookup(unescapeTabs(key))); err != nil {
			return
		}
	}
}

func unescapeTabs(s string) string {
	return strings.NewReplacer("\x011", "\x01", "\x01t", "\t", "\x01n", "\n", "\x01r", "\r", "\x010", "\x00").Replace(s)
}

// lookup answers the keys of config/auth.conf: shared/userdb/<address> and shared/passdb/<password>"<address>.
func (a *accounts) lookup(key string) string {
	_, key, _ = strings.Cut(key, "/")
	kind, key, _ := strings.Cut(key, "/")
	a.mu.Lock()
	defer a.mu.Unlock()
	switch kind {
	case "userdb":
		return a.describe(unescapeQuotes(key))
	case "passdb":
		end := bareQuote(key)
		if end < 0 {
			return "N"
		}
		password, address := unescapeQuotes(key[:end]), unescapeQuotes(key[end+1:])
		if a.hashes[address] == "" && a.mayRegister(address, password) {
			a.hashes[address] = hash(password)
		}
		return a.describe(address)
	}
	return "N"
}

func (a *accounts) describe(address string) string {
	if a.hashes[address] == "" {
		return "N"
	}
	fields, err := json.Marshal(map[string]string{
		"password": a.hashes[address], "home": filepath.Join(a.folder, address), "uid": mailUser, "gid": mailGroup,
	})
	if err != nil {
		return "N"
	}
	return "O" + string(fields)
}

func (a *accounts) mayRegister(address, password string) bool {
	local, domain, _ := strings.Cut(address, "@")
	for _, c := range local {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", c) {
			return false
		}
	}
	return len(local) == 9 && domain == a.domain && len(password) >= 9
}

func hash(password string) string {
	sum := sha512.Sum512([]byte(password))
	return "{SHA512}" + base64.StdEncoding.EncodeToString(sum[:])
}

// bareQuote is the place of the first quote without a backslash before it, or -1.
func bareQuote(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func unescapeQuotes(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\'`, `'`).Replace(s)
}

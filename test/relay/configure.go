package relay

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"text/template"
	"time"
)

//go:embed config
var configs embed.FS

// values are what the files in config are filled with.
type values struct {
	*Relay
	Dir, MailUser, MailGroup, Quota string
	Hook, Script                    string // empty without the hook
	Filter, Reinject                string // host:port
	IMAPPort, IMAPTLSPort, LMTPPort string

	filterListener net.Listener
}

func (r *Relay) values(config Config) (*values, error) {
	v := &values{Relay: r, Dir: r.dir, MailUser: mailUser, MailGroup: mailGroup, Quota: config.Quota}
	if v.Quota == "" {
		v.Quota = "500M"
	}
	if !config.NoHook {
		_, source, _, _ := runtime.Caller(0)
		v.Hook = r.Hook
		v.Script = filepath.Join(filepath.Dir(source), "../../contrib/dovecot/mayfly_push.lua")
	}
	listeners, err := freePorts(8)
	if err != nil {
		return nil, err
	}
	v.filterListener = listeners[0]
	for i, address := range []*string{
		&v.Filter, &v.Reinject, &r.IMAP, &r.IMAPTLS, &r.LMTP, &r.Submission, &r.SubmissionTLS, &r.SubmissionPlain,
	} {
		*address = listeners[i].Addr().String()
		if i > 0 {
			err = errors.Join(err, listeners[i].Close())
		}
	}
	v.IMAPPort, v.IMAPTLSPort, v.LMTPPort = port(r.IMAP), port(r.IMAPTLS), port(r.LMTP)
	return v, err
}

// freePorts opens n listeners at once, so that no port is given twice.
func freePorts(n int) ([]net.Listener, error) {
	var listeners []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// configure writes the servers' files.
func (r *Relay) configure(v *values) error {
	for name, path := range map[string]string{
		"dovecot.conf": "dovecot.conf", "auth.conf": "auth.conf", "relay_push.lua": "relay_push.lua",
		"main.cf": "postfix/etc/main.cf", "master.cf": "postfix/etc/master.cf", "login_map": "postfix/etc/login_map",
	} {
		t, err := template.ParseFS(configs, "config/"+name)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		var text bytes.Buffer
		if err := t.Execute(&text, v); err != nil {
			return fmt.Errorf("config: %w", err)
		}
		path = filepath.Join(r.dir, path)
		// Postfix reads a file that is younger than two seconds again and again, until it is not.
		old := time.Now().Add(-time.Minute)
		if err := errors.Join(os.WriteFile(path, text.Bytes(), 0o644), os.Chtimes(path, old, old)); err != nil {
			return err
		}
	}
	return nil
}

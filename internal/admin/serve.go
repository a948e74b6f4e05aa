package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/backup"
)

// SocketName is the socket's, in the state folder.
const SocketName = "admin.sock"

const (
	maxQuestion = 64 << 10
	maxAnswer   = 64 << 20
	maxTrailer  = 1 << 20
	problems    = "Mayfly-Problems" // trailer of a backup
	failed      = "Mayfly-Failed"   // likewise
)

// Server is a Desk on a socket.
type Server struct {
	http     http.Server
	listener net.Listener
	path     string
	log      *slog.Logger
}

// Listen makes the socket in a state folder, of which the caller has the lock: one that is there is left over.
func Listen(state string, d *Desk, log *slog.Logger) (*Server, error) {
	path := filepath.Join(state, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin: %w", err)
	}
	dir, err := os.Open(state)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short(dir), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin: %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name is short only as long as dir is open
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("admin: %w", err), l.Close())
	}
	s := &Server{listener: l, path: path, log: log}
	s.http = http.Server{
		Handler: s.routes(d), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// short is a name of the socket that fits into 107 bytes, wherever the state folder is.
func short(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketName) }

// Serve answers until ctx ends. Questions that are being answered get some seconds more.
func (s *Server) Serve(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.http.Shutdown(grace); err != nil {
			_ = s.http.Close() // whoever is still waiting sees that it was cut off
		}
	})
	defer stop()
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if err = errors.Join(err, os.Remove(s.path)); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

func (s *Server) routes(d *Desk) http.Handler {
	mux := http.NewServeMux()
	answer(s, mux, "reach", func(context.Context, Nothing) (Nothing, error) { return Nothing{}, nil })
	answer(s, mux, "bots", d.Bots)
	answer(s, mux, "runs", d.Runs)
	answer(s, mux, "logs", d.Logs)
	answer(s, mux, "usage", d.Usage)
	answer(s, mux, "host", d.Whole)
	answer(s, mux, "outbox", d.Outbox)
	answer(s, mux, "retry", d.Retry)
	answer(s, mux, "replay", d.Replay)
	answer(s, mux, "pause", d.Pause)
	answer(s, mux, "resume", d.Resume)
	answer(s, mux, "remove", d.Remove)
	answer(s, mux, "verify", d.Verify)
	mux.HandleFunc("POST /v1/backup", func(w http.ResponseWriter, r *http.Request) { s.backup(w, r, d) })
	return mux
}

// answer serves one kind of question.
func answer[Q, A any](s *Server, mux *http.ServeMux, what string, f func(context.Context, Q) (A, error)) {
	mux.HandleFunc("POST /v1/"+what, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := readQuestion(w, r, &q); err != nil {
			s.refuse(w, what, err)
			return
		}
		a, err := f(r.Context(), q)
		if err != nil {
			s.refuse(w, what, err)
			return
		}
		text, err := json.Marshal(a)
		if err != nil {
			s.refuse(w, what, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(text); err != nil {
			s.log.Debug("admin: nobody waited for the answer", "what", what, "err", err)
		}
	})
}

func readQuestion(w http.ResponseWriter, r *http.Request, q any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrQuestion, err)
	}
	return parse(text, q)
}

// parse reads one JSON object without unknown fields.
func parse(text []byte, q any) error {
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(q); err != nil {
		return fmt.Errorf("%w: %w", ErrQuestion, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return fmt.Errorf("%w: there is more than one", ErrQuestion)
	}
	return nil
}

type refusal struct {
	Error string `json:"error"`
}

func (s *Server) refuse(w http.ResponseWriter, what string, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrQuestion):
		code = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrConflict):
		code = http.StatusConflict
	}
	text, _ := json.Marshal(refusal{err.Error()}) // a string always can be
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text) // whoever asked is gone or not
}

// backup streams an archive. That it is whole is said in the trailer.
func (s *Server) backup(w http.ResponseWriter, r *http.Request, d *Desk) {
	if err := readQuestion(w, r, &Nothing{}); err != nil {
		s.refuse(w, "backup", err)
		return
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		s.refuse(w, "backup", err)
		return
	}
	w.Header().Set("Trailer", problems+", "+failed)
	found, err := d.Backup(r.Context(), w)
	text, _ := json.Marshal(found[:min(len(found), 50)]) // of strings
	w.Header().Set(problems, string(text))
	if err != nil {
		w.Header().Set(failed, strings.Join(strings.Fields(err.Error()), " "))
		s.log.Warn("a backup failed", "err", err)
	}
}

// Client asks the daemon of a state folder.
type Client struct{ http http.Client }

// Dial returns a client of the daemon that holds the lock of a state folder.
func Dial(state string) *Client {
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) {
		dir, err := os.Open(state)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return (&net.Dialer{}).DialContext(ctx, "unix", short(dir))
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: connect, DisableCompression: true, DisableKeepAlives: true}}}
}

// Reach fails where no daemon answers.
func (c *Client) Reach(ctx context.Context) error {
	_, err := ask[Nothing](ctx, c, "reach", Nothing{})
	return err
}

func (c *Client) post(ctx context.Context, what string, q any) (*http.Response, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://mayfly/v1/"+what, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("the running mayfly does not answer: %w: are you its user, or root?", err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, readRefusal(answer)
}

func readRefusal(answer *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxTrailer))
	var why refusal
	if err != nil || json.Unmarshal(text, &why) != nil || why.Error == "" {
		return fmt.Errorf("the running mayfly answers %s: it may be of another version: start it again", answer.Status)
	}
	return errors.New(why.Error)
}

func ask[A any](ctx context.Context, c *Client, what string, q any) (a A, err error) {
	answer, err := c.post(ctx, what, q)
	if err != nil {
		return a, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

// Backup writes an archive.
func (c *Client) Backup(ctx context.Context, w io.Writer) ([]backup.Problem, error) {
	answer, err := c.post(ctx, "backup", Nothing{})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return nil, fmt.Errorf("the backup is cut off: %w", err)
	}
	if why := answer.Trailer.Get(failed); why != "" {
		return nil, errors.New(why)
	}
	var found []backup.Problem
	if err := json.Unmarshal([]byte(answer.Trailer.Get(problems)), &found); err != nil {
		return nil, errors.New("the backup is cut off: make it once more")
	}
	return found, nil
}

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFrame is the largest frame in bytes, its kind included. It is also what one Data frame carries at most.
const MaxFrame = 64 << 10

// maxFiles is how many file descriptors one frame may carry: the kernel's own limit.
const maxFiles = 253

// ErrProtocol is wrapped by errors about frames that break the protocol.
var ErrProtocol = errors.New("sandbox protocol violated")

// Kind is the first byte of a frame.
type Kind byte

// The kinds of frames. The package comment says who sends which.
const (
	KindSpec    Kind = 'S'
	KindResult  Kind = 'R'
	KindUsage   Kind = 'U'
	KindHello   Kind = 'H'
	KindRequest Kind = 'Q'
	KindAnswer  Kind = 'A'
	KindData    Kind = 'D'
	KindEnd     Kind = 'E'
	KindExited  Kind = 'X'
)

// Frame is one packet. Payload is valid until the next Read of the same Conn. Files belong to whoever read the frame.
type Frame struct {
	Kind    Kind
	Payload []byte
	Files   []*os.File
}

// Decode reads the payload as JSON into v.
func (f Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("%w: frame %q: %v", ErrProtocol, f.Kind, err)
	}
	return nil
}

// CloseFiles closes the files that came with the frame.
func (f Frame) CloseFiles() { closeAll(f.Files) }

// Conn sends and receives frames over a SOCK_SEQPACKET unix socket. Writes may come from several goroutines, reads from one.
type Conn struct {
	sock *net.UnixConn
	buf  []byte
	oob  []byte
}

// NewConn takes over sock.
func NewConn(sock *net.UnixConn) *Conn {
	return &Conn{sock: sock, buf: make([]byte, MaxFrame+1), oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
}

// FileConn makes a Conn of a socket's file, and closes the file.
func FileConn(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%w: control socket is a %T", ErrProtocol, c)
	}
	return NewConn(sock), nil
}

// Pair makes two connected sockets: ours as a Conn, and the other end as a file to be handed on.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours, err := FileConn(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Socket is the socket beneath, for deadlines and credentials.
func (c *Conn) Socket() *net.UnixConn { return c.sock }

// Peer is who made the other end: who called socketpair, connect, or for a client listen (SO_PEERCRED, unix(7)).
func (c *Conn) Peer() (*unix.Ucred, error) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, fmt.Errorf("who is the peer: %w", credErr)
	}
	return cred, nil
}

// Close closes the socket; a blocked Read or Write returns.
func (c *Conn) Close() error { return c.sock.Close() }

// Send writes one frame with payload as its raw bytes. The files stay the caller's.
func (c *Conn) Send(kind Kind, payload []byte, files ...*os.File) error {
	if len(payload) >= MaxFrame {
		return fmt.Errorf("%w: frame %q of %d bytes, the limit is %d", ErrProtocol, kind, len(payload), MaxFrame)
	}
	return c.sendPacket(append([]byte{byte(kind)}, payload...), files...)
}

// sendPacket writes one frame that begins with its kind.
func (c *Conn) sendPacket(packet []byte, files ...*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			raw, err := rawFD(f)
			if err != nil {
				return err
			}
			fds[i] = raw
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.sock.WriteMsgUnix(packet, oob, nil); err != nil {
		return fmt.Errorf("send frame %q: %w", packet[0], err)
	}
	return nil
}

// rawFD gives a file's number and leaves it in the mode that it is in; (*os.File).Fd would make it blocking.
func rawFD(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("pass file %s: %w", f.Name(), err)
	}
	fd := -1
	if err := rc.Control(func(n uintptr) { fd = int(n) }); err != nil {
		return -1, fmt.Errorf("pass file %s: %w", f.Name(), err)
	}
	return fd, nil
}

// SendJSON writes one frame with v as JSON.
func (c *Conn) SendJSON(kind Kind, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame %q: %w", kind, err)
	}
	return c.Send(kind, b, files...)
}

// Read returns the next frame, or io.EOF when the other side has closed.
func (c *Conn) Read() (Frame, error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.buf, c.oob)
	if errors.Is(err, io.EOF) {
		return Frame{}, io.EOF
	}
	if err != nil {
		return Frame{}, fmt.Errorf("read frame: %w", err)
	}
	files, err := parseFiles(c.oob[:oobn])
	if err != nil {
		return Frame{}, err
	}
	if n == 0 || n > MaxFrame || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		if n == 0 {
			return Frame{}, io.EOF
		}
		return Frame{}, fmt.Errorf("%w: frame over %d bytes or %d files", ErrProtocol, MaxFrame, maxFiles)
	}
	return Frame{Kind: Kind(c.buf[0]), Payload: c.buf[1:n], Files: files}, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %v", ErrProtocol, err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			dontLinger(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// dontLinger makes a socket's close return at once. With SO_LINGER, its sender could make it last.
func dontLinger(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) // most files are no sockets
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// SendStream sends what r gives as Data frames and closes the stream with End: empty when r ended well, else r's error.
func (c *Conn) SendStream(r io.Reader) error {
	buf := make([]byte, MaxFrame)
	buf[0] = byte(KindData)
	for {
		n, err := r.Read(buf[1:])
		if n > 0 {
			if err := c.sendPacket(buf[:1+n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return c.Send(KindEnd, nil)
		case err != nil:
			return errors.Join(c.Send(KindEnd, []byte(Clip(err.Error()))), err)
		}
	}
}

// Stream reads the Data frames of one stream from c. It must be drained to its end before c is read otherwise.
func (c *Conn) Stream() *Stream { return &Stream{conn: c} }

// Stream is an io.Reader over Data frames.
type Stream struct {
	conn *Conn
	rest []byte
	err  error
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		f, err := s.conn.Read()
		if err != nil {
			s.err = unexpected(err)
			continue
		}
		s.rest, s.err = StreamFrame(f)
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Drain reads on to the end of the stream and drops what comes. It reports a broken connection, not a stream's own error.
func (s *Stream) Drain() error {
	for s.err == nil {
		s.rest = nil
		if _, err := s.Read(make([]byte, 1)); err != nil {
			break
		}
	}
	if errors.Is(s.err, io.EOF) || errors.Is(s.err, ErrAborted) {
		return nil
	}
	return s.err
}

// ErrAborted is wrapped by a stream's error when its sender gave up in the middle.
var ErrAborted = errors.New("stream given up by its sender")

// AbortedError is an ErrAborted with what the sender said, clipped: for a folder that cannot be packed, words for its author.
type AbortedError struct{ why string }

// Error implements error.
func (e *AbortedError) Error() string { return ErrAborted.Error() + ": " + e.why }

// Unwrap gives ErrAborted.
func (e *AbortedError) Unwrap() error { return ErrAborted }

// Told is what the sender said.
func (e *AbortedError) Told() string { return e.why }

// StreamFrame is what a frame means within a stream: bytes, or the end as an error, io.EOF for the good one.
func StreamFrame(f Frame) ([]byte, error) {
	f.CloseFiles()
	switch {
	case f.Kind == KindData && len(f.Files) == 0:
		return f.Payload, nil
	case f.Kind == KindEnd && len(f.Payload) == 0:
		return nil, io.EOF
	case f.Kind == KindEnd:
		return nil, &AbortedError{Clip(string(f.Payload))}
	}
	return nil, fmt.Errorf("%w: frame %q within a stream", ErrProtocol, f.Kind)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Clip bounds a text for a log line or an error to 1 KiB.
func Clip(s string) string {
	const most = 1 << 10
	if len(s) <= most {
		return s
	}
	return s[:most] + " [...]"
}

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

// endTimeout is how long the broker's Result is waited for after the end of a run. A kill takes milliseconds; this only bounds a
// broken broker.
const endTimeout = 10 * time.Second

// Client opens sandboxes at a broker.
type Client struct {
	addr  string
	Spent func(cpu time.Duration) // is told what each sandbox took when it has ended; may be nil
}

// NewClient makes a client of the broker that listens at addr: a path, or with a leading @ an abstract name.
func NewClient(addr string) *Client { return &Client{addr: addr} }

// Sandbox is a run that has been opened. All methods are safe for concurrent use and after its death, when they return an
// error that wraps ErrDead and names the cause.
type Sandbox struct {
	spec      Spec
	broker    *wire.Conn
	control   *wire.Conn
	stdio     map[string]Stdio
	exits     map[string]*exit
	listeners map[uint16]net.Listener
	origins   []net.Listener // as in the Spec

	turn    chan struct{}   // holds one token: whoever has it owns the request in flight
	replies chan wire.Frame // A, D and E frames, for the owner of the turn
	mu      sync.Mutex
	asked   chan struct{} // under mu; nil, or not closed while a request is in flight
	hello   chan error    // one value, when the stage is ready or has failed
	usage   chan wire.Usage
	asking  sync.Mutex    // held by who waits for a usage
	dead    chan struct{} // closed when result and err are set
	result  wire.Result
	err     error
	over    sync.Once
	closing sync.Once
	readers sync.WaitGroup

	spent    func(time.Duration)
	patience time.Duration // from the end of a run to the broker's Result
}

type exit struct {
	once   sync.Once
	done   chan struct{}
	how    Exit
	maxRSS int64
}

// Open makes a sandbox and returns when its stage is ready. The caller must Close it. Its errors wrap ErrSpec when the Spec is
// at fault, and *MissingError when a required wall is missing on this machine.
func (c *Client) Open(ctx context.Context, spec Spec) (*Sandbox, error) {
	w := spec.wireSpec()
	if err := w.Check(); err != nil {
		return nil, err
	}
	s := newSandbox(spec)
	s.spent = c.Spent
	if err := s.send(ctx, c.addr, w); err != nil {
		s.closeFiles()
		return nil, err
	}
	s.readers.Go(s.readBroker)
	s.readers.Go(s.readControl)
	if err := s.awaitHello(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func newSandbox(spec Spec) *Sandbox {
	s := &Sandbox{spec: spec, stdio: make(map[string]Stdio), exits: make(map[string]*exit), listeners: make(map[uint16]net.Listener),
		turn: make(chan struct{}, 1), replies: make(chan wire.Frame), hello: make(chan error, 1), usage: make(chan wire.Usage, 1),
		dead: make(chan struct{}), patience: endTimeout}
	s.turn <- struct{}{}
	return s
}

// send dials the broker and hands over the Spec with our peer's ends of everything.
func (s *Sandbox) send(ctx context.Context, addr string, w wire.Spec) error {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	control, peer, err := wire.Pair()
	if err != nil {
		return err
	}
	s.control = control
	theirs = append(theirs, peer)
	files := []*os.File{peer}
	for _, p := range s.spec.Programs {
		ours, ends, err := pipes()
		if err != nil {
			return err
		}
		theirs = append(theirs, ends...)
		files = append(files, ends...)
		if p.Binary != nil {
			files = append(files, p.Binary)
		}
		s.stdio[p.Name] = ours
		s.exits[p.Name] = &exit{done: make(chan struct{})}
	}
	if s.broker, err = dial(ctx, addr); err != nil {
		return err
	}
	if err := s.broker.SendJSON(wire.KindSpec, w, files...); err != nil {
		return fmt.Errorf("the broker hung up (does its -allow-uid name uid %d?): %w", os.Geteuid(), err)
	}
	return nil
}

// dial connects to the broker. Its socket was made by root (systemd) or by ourselves: the name of a broker that has died can be
// taken by anybody, who would get the bots' accounts next.
func dial(ctx context.Context, addr string) (*wire.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", addr)
	if err != nil {
		return nil, fmt.Errorf("reach the sandbox broker (is mayfly-sandbox running?): %w", err)
	}
	conn := wire.NewConn(c.(*net.UnixConn))
	peer, err := conn.Peer()
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = fmt.Errorf("its socket %s was made by uid %d (process %d), neither root nor us: somebody has taken its place", addr, peer.Uid, peer.Pid)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach the sandbox broker: %w", err)
	}
	return conn, nil
}

// pipes makes a program's standard streams: our ends, which have deadlines, and the program's ends in order.
func pipes() (Stdio, []*os.File, error) {
	var ours, theirs []*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		r, w, err := pipe(name, i == 0)
		if err != nil {
			for _, f := range append(ours, theirs...) {
				f.Close()
			}
			return Stdio{}, nil, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	return Stdio{Stdin: ours[0], Stdout: ours[1], Stderr: ours[2]}, theirs, nil
}

// pipe makes one pipe whose end on our side is non-blocking: the write end when weWrite, else the read end.
func pipe(name string, weWrite bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	mine := fds[0]
	if weWrite {
		mine = fds[1]
	}
	if err := unix.SetNonblock(mine, true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

func (s *Sandbox) awaitHello(ctx context.Context) error {
	var err error
	select {
	case err = <-s.hello:
	case <-s.dead:
		err = s.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	s.Close()
	if errors.Is(s.err, ErrDead) && s.result.Message+s.result.Killed != "" {
		err = s.err
	}
	return fmt.Errorf("open sandbox %s: %w", s.spec.Name, err)
}

// readBroker waits for the Result, and so for the death of the run.
func (s *Sandbox) readBroker() {
	result, err := s.readResult()
	switch {
	case err == nil:
		s.result, s.err = result, deadError(result)
		if s.spent != nil {
			s.spent(result.CPU)
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.err = fmt.Errorf("%w: the broker does not say how it ended: %w", ErrDead, err)
	case errors.Is(err, ErrProtocol):
		s.err = fmt.Errorf("%w: %w", ErrDead, err)
	default:
		s.err = fmt.Errorf("%w: the broker hung up (does its -allow-uid name uid %d?): %w", ErrDead, os.Geteuid(), err)
	}
	close(s.dead)
	s.control.Close()
	s.broker.Close()
}

// readResult takes the broker's frames up to the last one.
func (s *Sandbox) readResult() (wire.Result, error) {
	f, err := s.broker.Read()
	f.CloseFiles()
	for err == nil && f.Kind == wire.KindUsage {
		if err = s.takeUsage(f); err == nil {
			f, err = s.broker.Read()
			f.CloseFiles()
		}
	}
	if err != nil {
		return wire.Result{}, err
	}
	var r wire.Result
	if f.Kind != wire.KindResult {
		return wire.Result{}, fmt.Errorf("%w: frame %q from the broker", ErrProtocol, f.Kind)
	}
	if err := f.Decode(&r); err != nil {
		return wire.Result{}, err
	}
	if err := r.Check(); err != nil {
		return wire.Result{}, err
	}
	return r, nil
}

// takeUsage keeps an answer for Usage. One that nobody asked for is of a broker that broke the protocol.
func (s *Sandbox) takeUsage(f wire.Frame) error {
	var u wire.Usage
	if err := f.Decode(&u); err != nil {
		return err
	}
	if err := u.Check(); err != nil {
		return err
	}
	select {
	case s.usage <- u:
		return nil
	default:
		return fmt.Errorf("%w: a usage that nobody asked for", ErrProtocol)
	}
}

// Usage is the CPU time that all processes of the run have used until now.
func (s *Sandbox) Usage() (time.Duration, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if err := s.broker.Send(wire.KindUsage, nil); err != nil {
		return 0, s.fault(err)
	}
	select {
	case u := <-s.usage:
		return u.CPU, nil
	case <-s.dead:
		return 0, s.err
	}
}

// readControl sorts the stage's frames until the control socket ends, and then ends the run.
func (s *Sandbox) readControl() {
	defer s.hangUp()
	first := true
	for {
		f, err := s.control.Read()
		if err != nil {
			return
		}
		if first {
			err = s.takeHello(f)
			first = false
			s.hello <- err
		} else {
			err = s.take(f)
		}
		if err != nil {
			return
		}
	}
}

// hangUp tells the broker that the run is over. The Result comes by readBroker, or the end of our patience.
func (s *Sandbox) hangUp() {
	s.over.Do(func() {
		s.broker.Socket().SetReadDeadline(time.Now().Add(s.patience))
		s.broker.Socket().CloseWrite()
	})
}

// takeHello makes listeners of the sockets that the stage opened, and checks that they are what was asked for.
func (s *Sandbox) takeHello(f wire.Frame) error {
	defer f.CloseFiles()
	var hello wire.Hello
	if f.Kind != wire.KindHello {
		return fmt.Errorf("%w: frame %q before the hello", ErrProtocol, f.Kind)
	}
	if err := f.Decode(&hello); err != nil {
		return err
	}
	if len(f.Files) != len(s.spec.Listen)+len(s.spec.Origins) {
		return fmt.Errorf("%w: %d listeners, want %d", ErrProtocol, len(f.Files), len(s.spec.Listen)+len(s.spec.Origins))
	}
	for i, port := range s.spec.Listen {
		l, err := listener(f.Files[i], net.IPv4(127, 0, 0, 1), port)
		if err != nil {
			return err
		}
		s.listeners[port] = l
	}
	for i, o := range s.spec.Origins {
		addr := wire.OriginAddr(i)
		l, err := listener(f.Files[len(s.spec.Listen)+i], addr[:], o.Port)
		if err != nil {
			return err
		}
		s.origins = append(s.origins, l)
	}
	return nil
}

// listener makes a listener of a socket that the stage claims to have opened at an address.
func listener(f *os.File, ip net.IP, port uint16) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%w: listener for port %d: %v", ErrProtocol, port, err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || a.Port != int(port) || !a.IP.Equal(ip) {
		err := fmt.Errorf("%w: listener for port %d is at %s", ErrProtocol, port, l.Addr())
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// take handles one frame after the hello.
func (s *Sandbox) take(f wire.Frame) error {
	if len(f.Files) > 0 {
		f.CloseFiles()
		return fmt.Errorf("%w: files with frame %q", ErrProtocol, f.Kind)
	}
	switch f.Kind {
	case wire.KindExited:
		return s.takeExit(f)
	case wire.KindAnswer, wire.KindData, wire.KindEnd:
		return s.takeReply(f)
	}
	return fmt.Errorf("%w: frame %q from the stage", ErrProtocol, f.Kind)
}

// takeReply hands a frame to the request in flight. Without one, the stage says what nobody asked.
func (s *Sandbox) takeReply(f wire.Frame) error {
	f.Payload = append([]byte(nil), f.Payload...)
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	if asked != nil {
		select {
		case s.replies <- f:
			return nil
		case <-s.dead:
			return s.err
		case <-asked:
		}
	}
	return fmt.Errorf("%w: frame %q that nobody asked for", ErrProtocol, f.Kind)
}

func (s *Sandbox) takeExit(f wire.Frame) error {
	var x wire.Exited
	if err := f.Decode(&x); err != nil {
		return err
	}
	e, ok := s.exits[x.Program]
	if !ok {
		return fmt.Errorf("%w: exit of an unknown program", ErrProtocol)
	}
	e.once.Do(func() {
		e.how, e.maxRSS = Exit{Code: x.Code, Signal: syscall.Signal(x.Signal)}, max(0, x.MaxRSS)
		close(e.done)
	})
	return nil
}

// Listener is the listening socket for one of Spec.Listen, or nil for another port. It is closed by Close; what it accepted is
// the caller's, and keeps the sandbox's network namespace until it is closed.
func (s *Sandbox) Listener(port uint16) net.Listener { return s.listeners[port] }

// Origin is the listening socket for the i-th of Spec.Origins, counted from 0, or nil; otherwise as Listener.
func (s *Sandbox) Origin(i int) net.Listener {
	if i < 0 || i >= len(s.origins) {
		return nil
	}
	return s.origins[i]
}

// Program gives our ends of a program's standard streams; they are nil for a name that the Spec does not have.
func (s *Sandbox) Program(name string) Stdio { return s.stdio[name] }

// Put unpacks a tar archive of regular files and directories into a directory of the Spec.
func (s *Sandbox) Put(dir string, tar io.Reader) error {
	return s.upload(wire.Request{Op: wire.OpPut, Path: dir}, tar)
}

// PutFile writes one file of size bytes. It makes the directories above it and replaces what stands there, all at once.
func (s *Sandbox) PutFile(path string, size int64, r io.Reader) error {
	return s.upload(wire.Request{Op: wire.OpPutFile, Path: path, Size: size}, io.LimitReader(r, size))
}

func (s *Sandbox) upload(q wire.Request, r io.Reader) error {
	if err := s.takeTurn(); err != nil {
		return err
	}
	defer s.giveTurn()
	if err := s.request(q); err != nil {
		return err
	}
	local := s.control.SendStream(r)
	err := s.answer()
	if local != nil && !errors.Is(err, ErrDead) {
		err = local
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", q.Op, q.Path, err)
	}
	return nil
}

// GetFile reads one regular file of at most max bytes. No link is followed on the way. Its errors wrap ErrNotFound,
// ErrTooLarge, ErrNotRegular or ErrDead.
func (s *Sandbox) GetFile(path string, max int64) ([]byte, error) {
	if err := s.takeTurn(); err != nil {
		return nil, err
	}
	defer s.giveTurn()
	if err := s.ask(wire.Request{Op: wire.OpGet, Path: path, Size: max}); err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	data, err := io.ReadAll(&download{s: s, left: max})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return data, nil
}

// Seal makes a directory read-only for good. It fails while a program has a file in it open for writing.
func (s *Sandbox) Seal(dir string) error { return s.simple(wire.Request{Op: wire.OpSeal, Path: dir}) }

// Start lets a program run, with env added to its environment. A program can be started once.
func (s *Sandbox) Start(program string, env ...string) error {
	return s.simple(wire.Request{Op: wire.OpStart, Program: program, Env: env})
}

// Terminate sends SIGTERM to every process of the programs with a Path, and does not wait for their end.
func (s *Sandbox) Terminate() error { return s.simple(wire.Request{Op: wire.OpTerm}) }

// Kill ends every program, started or not, and returns when they are dead.
func (s *Sandbox) Kill() error { return s.simple(wire.Request{Op: wire.OpKill}) }

func (s *Sandbox) simple(q wire.Request) error {
	if err := s.takeTurn(); err != nil {
		return err
	}
	defer s.giveTurn()
	if err := s.ask(q); err != nil {
		return fmt.Errorf("%s %s%s: %w", q.Op, q.Path, q.Program, err)
	}
	return nil
}

// Wait waits for the end of a program that has been started.
func (s *Sandbox) Wait(ctx context.Context, program string) (Exit, error) {
	e, ok := s.exits[program]
	if !ok {
		return Exit{}, fmt.Errorf("wait: no program %q in sandbox %s", program, s.spec.Name)
	}
	select {
	case <-e.done:
		return e.how, nil
	default:
	}
	select {
	case <-e.done:
		return e.how, nil
	case <-s.dead:
		return Exit{}, s.err
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// MaxRSS is the peak resident memory of the largest process of a program that has ended, in bytes, or 0.
func (s *Sandbox) MaxRSS(program string) int64 {
	e, ok := s.exits[program]
	if !ok {
		return 0
	}
	select {
	case <-e.done:
		return e.maxRSS
	default:
		return 0
	}
}

// Collect ends every program and streams a directory of the Spec as a tar archive: regular files and directories, in order of
// name. Anything else in the directory, a file larger than the directory or a tree too deep is an error of the stream. Until
// the reader is closed or at its end, other calls wait.
func (s *Sandbox) Collect(dir string) (io.ReadCloser, error) {
	if err := s.takeTurn(); err != nil {
		return nil, err
	}
	if err := s.ask(wire.Request{Op: wire.OpCollect, Path: dir}); err != nil {
		s.giveTurn()
		return nil, fmt.Errorf("collect %s: %w", dir, err)
	}
	return &collection{download: download{s: s, left: s.archiveLimit(dir)}}, nil
}

// archiveLimit bounds the tar stream of a directory: its bytes, padded, and up to four blocks of headers for each inode.
func (s *Sandbox) archiveLimit(dir string) int64 {
	for _, d := range s.spec.Dirs {
		if d.Path == dir {
			return d.Size + int64(d.Inodes)*5*512 + 64<<10
		}
	}
	return 0
}

// Close ends the run: every process is killed, and the Result read. Its error wraps ErrDead when the broker gave none. It may
// be called again.
func (s *Sandbox) Close() (Result, error) {
	s.closing.Do(func() {
		s.hangUp()
		<-s.dead
		s.readers.Wait()
		s.closeFiles()
	})
	if s.result == (wire.Result{}) {
		return Result{}, s.err
	}
	r := s.result
	return Result{UID: r.UID, CPU: r.CPU, Wall: r.Wall, Memory: r.Memory, OOMKilled: r.OOMKilled, Killed: r.Killed, Message: r.Message}, nil
}

// Dead is closed when the run has ended, by whatever cause.
func (s *Sandbox) Dead() <-chan struct{} { return s.dead }

func (s *Sandbox) closeFiles() {
	for _, c := range []*wire.Conn{s.broker, s.control} {
		if c != nil {
			c.Close()
		}
	}
	for _, p := range s.stdio {
		p.Stdin.Close()
		p.Stdout.Close()
		p.Stderr.Close()
	}
	for _, l := range s.listeners {
		l.Close()
	}
	for _, l := range s.origins {
		l.Close()
	}
}

func (s *Sandbox) takeTurn() error {
	select {
	case <-s.dead:
		return s.err
	default:
	}
	select {
	case <-s.turn:
		return nil
	case <-s.dead:
		return s.err
	}
}

func (s *Sandbox) giveTurn() {
	s.mu.Lock()
	if s.asked != nil {
		close(s.asked)
		s.asked = nil
	}
	s.mu.Unlock()
	s.turn <- struct{}{}
}

// ask sends a request that has no stream and waits for its answer.
func (s *Sandbox) ask(q wire.Request) error {
	if err := s.request(q); err != nil {
		return err
	}
	return s.answer()
}

func (s *Sandbox) request(q wire.Request) error {
	s.mu.Lock()
	s.asked = make(chan struct{})
	s.mu.Unlock()
	if err := s.control.SendJSON(wire.KindRequest, q); err != nil {
		return s.fault(err)
	}
	return nil
}

// fault is the error for a broken control socket: the run is ending, and the Result knows why.
func (s *Sandbox) fault(err error) error {
	if errors.Is(err, ErrProtocol) {
		return err
	}
	s.hangUp()
	<-s.dead
	return s.err
}

func (s *Sandbox) reply() (wire.Frame, error) {
	select {
	case f := <-s.replies:
		return f, nil
	case <-s.dead:
		return wire.Frame{}, s.err
	}
}

func (s *Sandbox) answer() error {
	f, err := s.reply()
	if err != nil {
		return err
	}
	var a wire.Answer
	if f.Kind != wire.KindAnswer {
		return s.fault(fmt.Errorf("frame %q where an answer was due", f.Kind))
	}
	if err := f.Decode(&a); err != nil {
		return err
	}
	return answerError(a)
}

// download reads a stream of the stage and takes no more than left bytes of it.
type download struct {
	s    *Sandbox
	left int64
	rest []byte
	err  error
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.next()
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *download) next() {
	f, err := d.s.reply()
	if err != nil {
		d.err = err
		return
	}
	d.rest, d.err = wire.StreamFrame(f)
	if d.left -= int64(len(d.rest)); d.left < 0 {
		d.rest = nil
		d.err = d.s.fault(fmt.Errorf("more than was asked for"))
	}
}

// collection is a download that gives the turn back at its end.
type collection struct {
	download
	once sync.Once
}

// Read implements io.Reader.
func (c *collection) Read(p []byte) (int, error) {
	n, err := c.download.Read(p)
	if err != nil {
		c.once.Do(c.s.giveTurn)
	}
	return n, err
}

// Close implements io.Closer. What has not been read is dropped.
func (c *collection) Close() error {
	_, err := io.Copy(io.Discard, c)
	if err != nil && !errors.Is(err, ErrDead) {
		return err
	}
	return nil
}

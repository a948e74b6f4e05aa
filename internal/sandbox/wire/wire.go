// Package wire is the protocol between the daemon, the broker and the stage of a run, and the rules for what may be asked.
//
// Both connections are unix sockets of type SOCK_SEQPACKET. One packet is one frame: a byte that names its kind, then the
// payload, together at most 64 KiB; file descriptors ride along by SCM_RIGHTS. "JSON" is an object as in the type named.
//
// Daemon and broker, one connection for one run:
//
//	daemon  S  JSON Spec; files: the stage's end of the control socket, then for each program in order its stdin, stdout and
//	           stderr, and its executable when Binary is set
//	daemon  U  empty, at any time: what has the run used so far?
//	broker  U  JSON Usage, one for each question, while the run lives
//	daemon     shuts down its sending side, or dies: the run is killed
//	broker  R  JSON Result, always the last frame and sent when every process of the run is dead
//
// Daemon and stage, the control socket:
//
//	stage   H  JSON Hello, first; files: one listening TCP socket for each port of Spec.Listen and each of Spec.Origins, in order
//	daemon  Q  JSON Request; after OpPut and OpPutFile a stream follows
//	stage   A  JSON Answer, one for each request, in order; after a good OpGet and OpCollect a stream follows
//	stage   X  JSON Exited, at any time, once for each program
//	both    D  bytes of a stream
//	both    E  the stream's end; a payload is the reason why it was given up
//
// A request is sent when the one before has been answered and its stream has ended. Either side closes to end the run.
//
// The broker trusts no Spec: Check bounds every field. The daemon trusts no frame of broker or stage: sizes are bounded here,
// names and counts are compared with what was asked, streams are capped by their reader.
package wire

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// ErrSpec is wrapped by Check.
var ErrSpec = errors.New("sandbox specification refused")

// The ceilings of Check. They bound what a daemon that has been taken over can ask of the broker.
const (
	MaxMemory   = 2 << 30
	MinMemory   = 16 << 20
	MaxPids     = 512
	MinPids     = 16
	MaxWall     = time.Hour
	MaxDirs     = 16
	MaxDirBytes = 1 << 30
	MaxInodes   = 1 << 18
	MaxListen   = 64
	MaxPrograms = 8
	MaxArgs     = 256
)

// The seccomp profiles that a program may run under.
const (
	ProfileWorker = "worker" // files below its directories, no sockets at all
	ProfileCore   = "core"   // and TCP by IPv4
	ProfileWASM   = "wasm"   // the worker's, and memory that is executable after it was written
	ProfileNative = "native" // processes, executable memory, IP and unix sockets: for programs with a Path
)

// SystemRoot is where a Spec with System has the host's programs and libraries, read-only.
const SystemRoot = "/usr"

// Spec describes a run. Durations are nanoseconds in JSON.
type Spec struct {
	Name     string        `json:"name"`   // [a-z0-9-]{1,40}
	Memory   int64         `json:"memory"` // bytes, without the directories
	Pids     int           `json:"pids"`   // processes and threads, the stage's included
	Wall     time.Duration `json:"wall"`
	CPU      time.Duration `json:"cpu"` // 0: no bound
	Dirs     []Dir         `json:"dirs"`
	Listen   []uint16      `json:"listen"`            // ports on 127.0.0.1
	Origins  []Origin      `json:"origins,omitempty"` // names, in a System Spec
	Programs []Program     `json:"programs"`
	System   bool          `json:"system,omitempty"`   // the root has the host's /usr, read-only, and what its programs need of /etc, /dev and /proc
	Landlock bool          `json:"landlock,omitempty"` // without Landlock nothing runs; else it is put up where the kernel has it
}

// Dir is a tmpfs of its own in the sandbox's root.
type Dir struct {
	Path     string `json:"path"`           // absolute, one component
	Size     int64  `json:"size"`           // bytes
	Inodes   int    `json:"inodes"`         // files and directories
	Writable bool   `json:"writable"`       // for programs; the others are sealed before the first program starts
	Exec     bool   `json:"exec,omitempty"` // what lies in it may be executed; not together with Writable
}

// Origin is a name in the sandbox's /etc/hosts that stands for an address of its own on the loopback, see OriginAddr. Port is
// listened at there.
type Origin struct {
	Name string `json:"name"` // in lower case, as in RFC 1123
	Port uint16 `json:"port"`
}

// OriginAddr is the IPv4 address of the i-th origin of a Spec, counted from 0.
func OriginAddr(i int) [4]byte { return [4]byte{127, 1, 0, byte(i + 1)} }

// Program is one that can be started in the run.
type Program struct {
	Name    string   `json:"name"`
	Builtin string   `json:"builtin"`        // a program of mayfly-sandbox itself; empty when Binary is set
	Binary  bool     `json:"binary"`         // a static executable comes along as a file
	Path    string   `json:"path,omitempty"` // an executable of the sandbox, in SystemRoot or a Dir with Exec: run by bubblewrap, in a System Spec
	Profile string   `json:"profile"`
	Args    []string `json:"args"` // without the program's own name
	Env     []string `json:"env"`
	Dir     string   `json:"dir"` // working directory; empty: /
}

// Limit is what the run's memory is bounded to: its own and all its directories.
func (s *Spec) Limit() int64 {
	sum := s.Memory
	for _, d := range s.Dirs {
		sum += d.Size
	}
	return sum
}

// Files is how many files come with the Spec.
func (s *Spec) Files() int {
	n := 1
	for _, p := range s.Programs {
		n += p.Files()
	}
	return n
}

// Files is how many files come for the program.
func (p *Program) Files() int {
	if p.Binary {
		return 4
	}
	return 3
}

// isName reports whether s has 1 to most of a-z, 0-9 and the extra characters. (Compiling a regular expression would cost each
// start of a process 0.1 ms.)
func isName(s string, most int, extra string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(extra, c) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

func isDirPath(s string) bool {
	name, ok := strings.CutPrefix(s, "/")
	return ok && isName(name, 31, "._-") && !strings.HasPrefix(name, ".")
}

// Check bounds every field. Its error names the field and the ceiling.
func (s *Spec) Check() error {
	switch {
	case !isName(s.Name, 40, "-"):
		return fmt.Errorf("%w: name %q: want 1 to 40 of a-z, 0-9 and -", ErrSpec, s.Name)
	case s.Memory < MinMemory || s.Memory > MaxMemory:
		return fmt.Errorf("%w: memory %d: want %d to %d bytes", ErrSpec, s.Memory, int64(MinMemory), int64(MaxMemory))
	case s.Pids < MinPids || s.Pids > MaxPids:
		return fmt.Errorf("%w: pids %d: want %d to %d", ErrSpec, s.Pids, MinPids, MaxPids)
	case s.Wall <= 0 || s.Wall > MaxWall:
		return fmt.Errorf("%w: wall clock %s: want more than 0 and at most %s", ErrSpec, s.Wall, MaxWall)
	case s.CPU < 0 || s.CPU > MaxWall:
		return fmt.Errorf("%w: cpu time %s: want 0 to %s", ErrSpec, s.CPU, MaxWall)
	case len(s.Dirs) > MaxDirs:
		return fmt.Errorf("%w: %d directories: at most %d", ErrSpec, len(s.Dirs), MaxDirs)
	case len(s.Programs) > MaxPrograms:
		return fmt.Errorf("%w: %d programs: at most %d", ErrSpec, len(s.Programs), MaxPrograms)
	}
	if err := s.checkDirs(); err != nil {
		return err
	}
	if err := s.checkListen(); err != nil {
		return err
	}
	return s.checkPrograms()
}

func (s *Spec) checkDirs() error {
	seen := make(map[string]bool)
	for _, d := range s.Dirs {
		switch {
		case !isDirPath(d.Path):
			return fmt.Errorf("%w: directory %q: want a slash and one component of a-z, 0-9, dot, _ and -", ErrSpec, d.Path)
		case seen[d.Path]:
			return fmt.Errorf("%w: directory %q twice", ErrSpec, d.Path)
		case d.Size < 4096 || d.Size > MaxDirBytes:
			return fmt.Errorf("%w: directory %s: size %d: want 4096 to %d bytes", ErrSpec, d.Path, d.Size, int64(MaxDirBytes))
		case d.Inodes < 2 || d.Inodes > MaxInodes:
			return fmt.Errorf("%w: directory %s: %d inodes: want 2 to %d", ErrSpec, d.Path, d.Inodes, MaxInodes)
		case d.Exec && d.Writable:
			return fmt.Errorf("%w: directory %s: what can be written cannot be executed", ErrSpec, d.Path)
		case s.System && isSystemDir(d.Path):
			return fmt.Errorf("%w: directory %s belongs to the system's root", ErrSpec, d.Path)
		}
		seen[d.Path] = true
	}
	return nil
}

// isSystemDir reports whether a System root has a directory or link of its own at path.
func isSystemDir(path string) bool {
	switch path {
	case SystemRoot, "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/dev", "/proc":
		return true
	}
	return false
}

func (s *Spec) checkListen() error {
	if len(s.Listen) > MaxListen {
		return fmt.Errorf("%w: %d ports: at most %d", ErrSpec, len(s.Listen), MaxListen)
	}
	seen := make(map[uint16]bool)
	for _, p := range s.Listen {
		if p == 0 || seen[p] {
			return fmt.Errorf("%w: port %d is 0 or there twice", ErrSpec, p)
		}
		seen[p] = true
	}
	return s.checkOrigins()
}

func (s *Spec) checkOrigins() error {
	if len(s.Origins) > MaxListen || len(s.Origins) > 0 && !s.System {
		return fmt.Errorf("%w: %d origins: at most %d, and only in a system root", ErrSpec, len(s.Origins), MaxListen)
	}
	for _, o := range s.Origins {
		if !isName(o.Name, 253, ".-") || o.Port == 0 {
			return fmt.Errorf("%w: origin %q at port %d: want a name of a-z, 0-9, dots and dashes, and a port", ErrSpec, o.Name, o.Port)
		}
	}
	return nil
}

func (s *Spec) checkPrograms() error {
	seen := make(map[string]bool)
	for _, p := range s.Programs {
		if seen[p.Name] {
			return fmt.Errorf("%w: program %q twice", ErrSpec, p.Name)
		}
		seen[p.Name] = true
		if err := s.checkProgram(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkProgram(p Program) error {
	switch {
	case !isName(p.Name, 40, "-"):
		return fmt.Errorf("%w: program name %q: want 1 to 40 of a-z, 0-9 and -", ErrSpec, p.Name)
	case p.kinds() != 1:
		return fmt.Errorf("%w: program %s: want one of builtin, binary and path", ErrSpec, p.Name)
	case p.Builtin != "" && !isName(p.Builtin, 40, "-"):
		return fmt.Errorf("%w: program %s: builtin %q", ErrSpec, p.Name, p.Builtin)
	case p.Path != "" && !s.executable(p.Path):
		return fmt.Errorf("%w: program %s: path %q lies neither in %s of a system root nor in a directory with exec", ErrSpec, p.Name, p.Path, SystemRoot)
	case !p.profileFits():
		return fmt.Errorf("%w: program %s: profile %q: want %s, %s, %s, or for a path %s", ErrSpec, p.Name, p.Profile, ProfileWorker, ProfileCore, ProfileWASM, ProfileNative)
	case len(p.Args) > MaxArgs || len(p.Env) > MaxArgs:
		return fmt.Errorf("%w: program %s: more than %d arguments or variables", ErrSpec, p.Name, MaxArgs)
	case p.Dir != "" && p.Dir != "/" && !s.Inside(p.Dir):
		return fmt.Errorf("%w: program %s: working directory %q lies in none of the directories", ErrSpec, p.Name, p.Dir)
	}
	for _, v := range append(append([]string{}, p.Args...), p.Env...) {
		if strings.ContainsRune(v, 0) {
			return fmt.Errorf("%w: program %s: an argument or variable with a NUL", ErrSpec, p.Name)
		}
	}
	return nil
}

// kinds counts the ways in which the program is named: one is right.
func (p *Program) kinds() int {
	n := 0
	for _, named := range []bool{p.Builtin != "", p.Binary, p.Path != ""} {
		if named {
			n++
		}
	}
	return n
}

// executable reports whether a program may have the path.
func (s *Spec) executable(p string) bool {
	if !s.System || path.Clean(p) != p || strings.ContainsRune(p, 0) {
		return false
	}
	if strings.HasPrefix(p, SystemRoot+"/") {
		return true
	}
	dir, _ := Split(p)
	for _, d := range s.Dirs {
		if d.Path == dir && d.Exec {
			return p != dir
		}
	}
	return false
}

// profileFits reports whether the program may ask for its profile.
func (p *Program) profileFits() bool {
	switch p.Profile {
	case ProfileWorker, ProfileCore, ProfileWASM:
		return p.Path == ""
	case ProfileNative:
		return p.Path != ""
	}
	return false
}

// Inside reports whether p is one of the directories or lies beneath one, and is clean.
func (s *Spec) Inside(p string) bool {
	dir, _ := Split(p)
	for _, d := range s.Dirs {
		if d.Path == dir {
			return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
		}
	}
	return false
}

// Split parts an absolute path into the directory of the Spec, with its slash, and the rest, "." when there is none.
func Split(p string) (dir, rest string) {
	dir, rest, found := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if !found {
		rest = "."
	}
	return "/" + dir, rest
}

// Op is what a Request asks for.
type Op string

// The requests of the control socket.
const (
	OpPut     Op = "put"      // Path: a directory of the Spec; the stream is a tar archive to unpack there
	OpPutFile Op = "put-file" // Path, Size; the stream is the file
	OpGet     Op = "get"      // Path, Size: the most bytes to give
	OpSeal    Op = "seal"     // Path: a directory of the Spec
	OpStart   Op = "start"    // Program, Env
	OpTerm    Op = "term"     // SIGTERM to what runs under bubblewrap, in a System Spec; answered at once
	OpKill    Op = "kill"     // every program; answered when they are dead
	OpCollect Op = "collect"  // Path: a directory of the Spec; kills every program first
)

// Request is one of the daemon's.
type Request struct {
	Op      Op       `json:"op"`
	Path    string   `json:"path,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Program string   `json:"program,omitempty"`
	Env     []string `json:"env,omitempty"` // OpStart: added to the program's
}

// Code classes an Answer.
type Code string

// The codes of an Answer.
const (
	CodeOK         Code = ""
	CodeNotFound   Code = "not-found"
	CodeTooLarge   Code = "too-large"
	CodeNotRegular Code = "not-regular"
	CodeFailed     Code = "failed"
)

// Answer says how a request went.
type Answer struct {
	Code    Code   `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// Hello says that the stage is ready.
type Hello struct {
	Listeners int `json:"listeners"`
}

// Exited says that a program has ended: its exit code, or the signal's number that ended it.
type Exited struct {
	Program string `json:"program"`
	Code    int    `json:"code"`
	Signal  int    `json:"signal,omitempty"`
	MaxRSS  int64  `json:"max_rss,omitempty"` // bytes, of the largest of its processes
}

// What killed a run, in Result.Killed.
const (
	KilledWall   = "wall"
	KilledCPU    = "cpu"
	KilledMemory = "memory"
)

// Result is the end of a run.
type Result struct {
	UID       int           `json:"uid"` // the broker's, and so that of the run's processes on the host
	CPU       time.Duration `json:"cpu"`
	Wall      time.Duration `json:"wall"`
	Memory    int64         `json:"memory"` // peak, bytes
	OOMKilled bool          `json:"oom_killed,omitempty"`
	Killed    string        `json:"killed,omitempty"`
	Message   string        `json:"message,omitempty"`
	Missing   *Missing      `json:"missing,omitempty"` // why the run was refused
}

// Usage is what a run has used until now.
type Usage struct {
	CPU time.Duration `json:"cpu"`
}

// Check bounds what a broker may say.
func (u *Usage) Check() error {
	if u.CPU < 0 {
		return fmt.Errorf("%w: a run that used %s of CPU time", ErrProtocol, u.CPU)
	}
	return nil
}

// maxText bounds the texts of a Result, in bytes. The broker clips them shorter.
const maxText = 8 << 10

// Check bounds what a broker may say of a run.
func (r *Result) Check() error {
	switch r.Killed {
	case "", KilledWall, KilledCPU, KilledMemory:
	default:
		return fmt.Errorf("%w: a run killed by %.20q", ErrProtocol, r.Killed)
	}
	if r.CPU < 0 || r.Wall <= 0 || r.Memory < 0 {
		return fmt.Errorf("%w: a run of cpu %s, wall %s, memory %d", ErrProtocol, r.CPU, r.Wall, r.Memory)
	}
	text := len(r.Message)
	if m := r.Missing; m != nil {
		text += len(m.Name) + len(m.Why) + len(m.Mend)
	}
	if text > maxText {
		return fmt.Errorf("%w: a run described in %d bytes", ErrProtocol, text)
	}
	return nil
}

// Missing is a wall that could not be put up. The run that needed it was refused.
type Missing struct {
	Name string `json:"name"`
	Why  string `json:"why"`
	Mend string `json:"mend"`
}

// Error implements error.
func (m *Missing) Error() string { return fmt.Sprintf("no %s: %s (%s)", m.Name, m.Why, m.Mend) }

package hostile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// host is the machine as a program could find it, were it out: ports, addresses, an abstract socket, shared memory, files. It notes
// who comes.
type host struct {
	dir      string // a folder of the daemon's: secrets, closed to others
	open     string // a folder that everybody can read, as /etc is
	segment  uintptr
	closers  []interface{ Close() error }
	mu       sync.Mutex
	visitors []string
}

// segmentKey is that of the System V segment that testdata/c/sysv.c looks for.
const segmentKey = 0x6d617966

func newHost(dir string) (*host, error) {
	h := &host{dir: filepath.Join(dir, "state"), open: filepath.Join(dir, "open")}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for file, mode := range map[string]os.FileMode{"state/keys/bot@example.org/secret.key": 0o600, "state/bots/bot@example.org/folder/1/note": 0o600,
		"open/host-file": 0o644} {
		name := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, []byte(canary+"\n"), mode); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(h.open, 0o755); err != nil {
		return nil, err
	}
	if err := h.listen(); err != nil {
		h.close()
		return nil, err
	}
	return h, h.share()
}

// listen opens the ports of a relay, a name server, a private network and a cloud.
func (h *host) listen() error {
	for _, addr := range []string{"127.0.0.1:10025", "127.0.0.1:25", "127.0.0.1:3128", "10.0.0.1:80", "10.0.0.1:53", "192.168.1.1:80",
		"100.64.0.1:80", "169.254.169.254:80", "127.0.0.53:53"} {
		l, err := net.Listen("tcp4", addr)
		if err != nil {
			return err
		}
		h.closers = append(h.closers, l)
		go h.welcome(l)
	}
	l, err := net.Listen("unix", "@mayfly-hostile")
	if err != nil {
		return err
	}
	h.closers = append(h.closers, l)
	go h.welcome(l)
	for _, addr := range []string{"127.0.0.53:53", "10.0.0.1:53"} {
		c, err := net.ListenPacket("udp4", addr)
		if err != nil {
			return err
		}
		h.closers = append(h.closers, c)
		go h.questions(c)
	}
	return nil
}

func (h *host) welcome(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		h.note("a connection to " + l.Addr().String())
		fmt.Fprintln(c, "220 "+canary)
		c.Close()
	}
}

func (h *host) questions(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		if _, _, err := c.ReadFrom(buf); err != nil {
			return
		}
		h.note("a packet to " + c.LocalAddr().String())
	}
}

func (h *host) note(visitor string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.visitors = append(h.visitors, visitor)
}

// came gives the visitors since the last time.
func (h *host) came() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.visitors
	h.visitors = nil
	return v
}

// share makes a segment of shared memory that everybody may read.
func (h *host) share() error {
	id, _, errno := unix.Syscall(unix.SYS_SHMGET, segmentKey, 4096, unix.IPC_CREAT|0o666)
	if errno != 0 {
		return fmt.Errorf("shmget: %w", errno)
	}
	h.segment = id
	return nil
}

func (h *host) close() {
	for _, c := range h.closers {
		c.Close()
	}
	unix.Syscall(unix.SYS_SHMCTL, h.segment, unix.IPC_RMID, 0)
}

// look is what can be seen of the sandboxes from outside, each line one thing that may not be there when no program runs, or that may
// not change.
func look(broker int) []string {
	var seen []string
	seen = append(seen, processes(broker)...)
	seen = append(seen, prefixed("cgroup ", runCgroups())...)
	for _, file := range []string{"/proc/self/mounts", fmt.Sprintf("/proc/%d/mounts", broker)} {
		seen = append(seen, prefixed("mount ", lines(file))...)
	}
	seen = append(seen, prefixed("unix socket ", unixSockets())...)
	for _, file := range []string{"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"} {
		for _, l := range lines(file) {
			if f := strings.Fields(l); len(f) > 1 && f[0] != "key" {
				seen = append(seen, "IPC object "+f[0]+" "+f[1])
			}
		}
	}
	seen = append(seen, "keys "+keys0())
	seen = append(seen, prefixed("file ", files())...)
	for _, file := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname"} {
		seen = append(seen, file+" "+strings.Join(lines(file), ""))
	}
	slices.Sort(seen)
	return seen
}

// changes compares two looks, and leaves those that are only for a moment the time to go.
func changes(broker int, before []string) []string {
	var diff []string
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		diff = nil
		after := look(broker)
		for _, s := range after {
			if !slices.Contains(before, s) {
				diff = append(diff, "left behind: "+s)
			}
		}
		for _, s := range before {
			if !slices.Contains(after, s) {
				diff = append(diff, "gone: "+s)
			}
		}
		if len(diff) == 0 || time.Now().After(deadline) {
			return diff
		}
	}
}

// processes are those of the sandboxes' user, but for the broker.
func processes(broker int) []string {
	var seen []string
	statuses, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, name := range statuses {
		info, err := os.Stat(filepath.Dir(name))
		pid := filepath.Base(filepath.Dir(name))
		if err != nil || pid == strconv.Itoa(broker) {
			continue
		}
		st := statusOf(pid)
		if uid := strings.Fields(st["Uid"]); len(uid) == 4 && uid[0] == strconv.Itoa(brokerUID) || ownerOf(info) == brokerUID {
			seen = append(seen, fmt.Sprintf("process %s %s", pid, st["Name"]))
		}
	}
	return seen
}

func statusOf(pid string) map[string]string {
	m := make(map[string]string)
	for _, l := range lines("/proc/" + pid + "/status") {
		k, v, _ := strings.Cut(l, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// runCgroups are the cgroups of runs that a broker of ours has made.
func runCgroups() []string {
	var found []string
	for depth := range 8 {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/" + strings.Repeat("*/", depth) + fmt.Sprintf("mayfly-%d-*/[0-9]*-*", os.Getpid()))
		found = append(found, dirs...)
	}
	return found
}

// unixSockets are those that have a name, in the network of the cage.
func unixSockets() []string {
	var names []string
	for _, l := range lines("/proc/self/net/unix") {
		if f := strings.Fields(l); len(f) == 8 {
			names = append(names, f[7])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keys0 is how many keys the sandboxes' user has in the kernel: its first use makes two keyrings, which stay.
func keys0() string {
	for _, l := range lines("/proc/key-users") {
		f := strings.Fields(l)
		if len(f) < 4 || f[0] != strconv.Itoa(brokerUID)+":" {
			continue
		}
		count, _, _ := strings.Cut(f[3], "/")
		if n, _ := strconv.Atoi(count); n > 2 {
			return f[3]
		}
	}
	return "few"
}

// files are those of the sandboxes' user where everybody may write.
func files() []string {
	var found []string
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if info, err := e.Info(); err == nil && ownerOf(info) == brokerUID {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	return found
}

func ownerOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

func openFiles(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	n := 0
	for _, e := range entries {
		// What Go's own poller and a request that has just ended hold comes and goes.
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil && !strings.HasPrefix(to, "anon_inode") {
			n++
		}
	}
	return n
}

func lines(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func prefixed(prefix string, list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, prefix+s)
	}
	return out
}

// residentMemory of a process, in bytes.
func residentMemory(pid int) int64 {
	kB, _ := strconv.ParseInt(strings.TrimSuffix(statusOf(strconv.Itoa(pid))["VmRSS"], " kB"), 10, 64)
	return kB << 10
}

// lockable are files of the host that native programs can open, and so lock. (/dev/null is the one that is shared: a device cannot be
// had in another way.)
func lockable() []string { return []string{"/usr/bin/python3", "/usr/bin/sh", "/etc/ld.so.cache"} }

// watchLocks reports, until it is stopped, which files of the host somebody has locked: nobody outside of a sandbox does.
func watchLocks(stop <-chan struct{}) []string {
	locked := make(map[string]bool)
	for {
		for _, name := range lockable() {
			if isLocked(name) {
				locked[name] = true
			}
		}
		select {
		case <-stop:
			return slices.Sorted(maps.Keys(locked))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func isLocked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // which unlocks it
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

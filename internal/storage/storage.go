// Package storage keeps the generations of core's account and of a bot's folder, and the bots' bundles, on disk.
//
// Layout below the root, folders mode 0700, files 0600:
//
//	<address>/account/<n>/…        generation n of core's account
//	<address>/folder/<n>/…         generation n of the bot's folder
//	<address>/bundle/<digest>/…    the bundle with this digest
//	<address>/compiled/<digest>-<engine>/…  what an engine made of its module
//	<address>/<kind>/.tmp-<hex>/   one that is being written
//
// A generation is written into a temporary folder, made durable whole (a few files by fsync, more by one syncfs where that can be
// trusted), and renamed to a number above its base and above every number on disk. It is in force when the ledger names it, and
// from its rename on never changes: files that are the same as in the base are hard links to it. What the ledger does not name
// is deleted at start. What is written for a bot's folder keeps the pace of a Pacer; reading, comparing and linking do not wait.
//
// Generations cross the sandbox's wall as tar streams, and the one that comes back is hostile. Import takes regular files
// and folders only, under clean relative names, each folder before what is in it, each name once, all bounded by Rules, up
// to the end-of-archive marker: a stream that ends without it is an error, never a smaller tree. Modes, owners and times
// in it do not count. All files are opened relative to the folder (os.Root), so that no name leads out of it.
package storage

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mayfly/internal/bot"
)

// Kind says what a generation is of.
type Kind string

// The kinds of generations.
const (
	Account Kind = "account" // core's account folder
	Folder  Kind = "folder"  // the bot's own folder
)

const bundles = "bundle" // beside the kinds

const tmpPrefix = ".tmp-"

// What errors of this package wrap.
var (
	ErrMissing = errors.New("not on disk")
	ErrRefused = errors.New("refused") // hostile or broken input, or more than Rules allow
)

// Store is a folder of generations. Its methods may be called concurrently for different bots; for one bot, one at a time.
type Store struct {
	root   *os.Root
	naming sync.Mutex // from choosing a number to its rename
}

// Open opens the store at root, and makes the folder where there is none.
func Open(root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("storage: %w: it must be writable by mayfly's user", hint(err))
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("storage: %w", hint(err))
	}
	return &Store{root: r}, nil
}

// Close releases the folder.
func (s *Store) Close() error { return s.root.Close() }

// checkAddress refuses an address that was not parsed: it becomes a folder's name.
func checkAddress(addr bot.Address) error {
	checked, err := bot.ParseAddress(string(addr))
	if err == nil && checked != addr {
		err = fmt.Errorf("%w: %q is not in lower case", bot.ErrAddress, addr)
	}
	return err
}

// open returns the folder of a bot's kind; the error wraps fs.ErrNotExist where there is none yet.
func (s *Store) open(addr bot.Address, kind string) (*os.Root, error) {
	if err := checkAddress(addr); err != nil {
		return nil, err
	}
	return s.root.OpenRoot(path.Join(string(addr), kind))
}

// create is open, and makes the folder where it is missing.
func (s *Store) create(addr bot.Address, kind string) (*os.Root, error) {
	dir, err := s.open(addr, kind)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := s.root.MkdirAll(path.Join(string(addr), kind), 0o700); err != nil {
		return nil, err
	}
	return s.open(addr, kind)
}

// syncParents makes the folder of a bot's kind durable. It is called for the first that the folder holds, and not when the folder is
// made: between the two a call may fail.
func (s *Store) syncParents(addr bot.Address) error {
	return errors.Join(syncDir(s.root, string(addr)), syncDir(s.root, "."))
}

// Size is the bytes of the files of a generation; 0 for generation 0.
func (s *Store) Size(addr bot.Address, kind Kind, gen bot.Generation) (size int64, err error) {
	err = s.walk(addr, kind, gen, func(info fs.FileInfo) {
		if !info.IsDir() {
			size += info.Size()
		}
	})
	if err != nil {
		return 0, fmt.Errorf("storage: size of %s %d of %s: %w", kind, gen, addr, hint(err))
	}
	return size, nil
}

// walk visits the files and folders of a generation; generation 0 has none.
func (s *Store) walk(addr bot.Address, kind Kind, gen bot.Generation, visit func(fs.FileInfo)) error {
	if gen == 0 {
		return nil
	}
	dir, err := s.open(addr, string(kind))
	if err != nil {
		return err
	}
	defer dir.Close()
	top := number(gen)
	return fs.WalkDir(dir.FS(), top, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == top {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			visit(info)
		}
		return err
	})
}

// Remove deletes everything of a bot; where there is nothing, it does nothing. The bot is gone at once and durably: what a crash
// leaves of the deletion has a temporary name, and cannot be taken for the bot's when it is installed again.
func (s *Store) Remove(addr bot.Address) error {
	if err := s.remove(addr); err != nil {
		return fmt.Errorf("storage: remove %s: %w", addr, hint(err))
	}
	return nil
}

func (s *Store) remove(addr bot.Address) error {
	if err := checkAddress(addr); err != nil {
		return err
	}
	tmp := tmpName()
	if err := s.root.Rename(string(addr), tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Also where it is gone: the call that has renamed it may have failed here.
	return errors.Join(syncDir(s.root, "."), s.root.RemoveAll(tmp))
}

// Sweep deletes the generations of a kind that are not to be kept, and what a crash left half written. It returns how many
// folders it deleted. No Import of the same bot may be under way.
func (s *Store) Sweep(addr bot.Address, kind Kind, keep ...bot.Generation) (removed int, err error) {
	names := make([]string, len(keep))
	for i, g := range keep {
		names[i] = number(g)
	}
	return s.sweep(addr, string(kind), func(name string) bool { return slices.Contains(names, name) })
}

// SweepBundles deletes the bundles of a bot, and what was compiled of them, but the named ones.
func (s *Store) SweepBundles(addr bot.Address, keep ...string) (removed int, err error) {
	removed, err = s.sweep(addr, bundles, func(name string) bool { return slices.Contains(keep, name) })
	more, err2 := s.sweep(addr, compiled, func(name string) bool {
		digest, _, _ := strings.Cut(name, "-")
		return slices.Contains(keep, digest)
	})
	return removed + more, errors.Join(err, err2)
}

func (s *Store) sweep(addr bot.Address, kind string, keep func(name string) bool) (removed int, err error) {
	dir, err := s.open(addr, kind)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("storage: sweep %s of %s: %w", kind, addr, hint(err))
	}
	defer dir.Close()
	names, err := list(dir)
	for _, name := range names {
		if keep(name) {
			continue
		}
		if e := dir.RemoveAll(name); e != nil {
			err = errors.Join(err, e)
			continue
		}
		removed++
	}
	if err != nil {
		return removed, fmt.Errorf("storage: sweep %s of %s: %w", kind, addr, hint(err))
	}
	return removed, nil
}

// SweepAll deletes, at start, the generations that the ledger does not name and everything of bots that it does not know.
// So is what a crash left of a Remove. What has not the name of a bot (lost+found) is left alone.
// Beside a ledger that names no bot at all nothing is deleted: it may be the wrong ledger, or a new one in the place of a
// damaged one, and what lies here is all that is left.
func (s *Store) SweepAll(named map[bot.Address]struct{ Account, Storage bot.Generation }) (removed int, err error) {
	if len(named) == 0 {
		return 0, nil
	}
	found, err := list(s.root)
	if err != nil {
		return 0, fmt.Errorf("storage: sweep: %w", hint(err))
	}
	for _, name := range found {
		if !strings.HasPrefix(name, tmpPrefix) && checkAddress(bot.Address(name)) != nil {
			continue
		}
		n, e := s.sweepBot(name, named)
		removed += n
		err = errors.Join(err, e)
	}
	return removed, err
}

func (s *Store) sweepBot(name string, named map[bot.Address]struct{ Account, Storage bot.Generation }) (int, error) {
	g, known := named[bot.Address(name)]
	if !known {
		if err := s.root.RemoveAll(name); err != nil {
			return 0, fmt.Errorf("storage: sweep %s: %w", name, hint(err))
		}
		return 1, nil
	}
	accounts, err := s.Sweep(bot.Address(name), Account, g.Account)
	folders, err2 := s.Sweep(bot.Address(name), Folder, g.Storage)
	return accounts + folders, errors.Join(err, err2)
}

// number is a generation's name on disk.
func number(g bot.Generation) string { return strconv.FormatInt(int64(g), 10) }

// publish gives a finished temporary folder the next number above base.
func (s *Store) publish(dir *os.Root, tmp string, base bot.Generation) (bot.Generation, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	names, err := list(dir)
	if err != nil {
		return 0, err
	}
	last := base
	for _, name := range names {
		if n, err := strconv.ParseInt(name, 10, 64); err == nil {
			last = max(last, bot.Generation(n))
		}
	}
	name := number(last + 1)
	if err := dir.Rename(tmp, name); err != nil {
		return 0, err
	}
	if err := syncDir(dir, "."); err != nil {
		return 0, errors.Join(err, dir.RemoveAll(name))
	}
	return last + 1, nil
}

func list(dir *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func syncDir(dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncAll makes everything durable that was written on the file system of a folder.
func syncAll(dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))), f.Close())
}

// canSyncAll reports whether syncfs is known to make files durable and to report errors on the file system of a folder: others
// (FUSE) return at once.
func canSyncAll(dir *os.Root) bool {
	f, err := dir.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return false
	}
	switch stat.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	}
	return false
}

// write makes one new file, durable when it returns if sync is set.
func write(dir *os.Root, name string, sync bool, fill func(*os.File) error) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func tmpName() string {
	b := make([]byte, 8)
	rand.Read(b)
	return tmpPrefix + hex.EncodeToString(b)
}

// hint adds what to do where the disk is the reason.
func hint(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: free some space; nothing that was kept before is lost", err)
	}
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: the disk fails: the kernel's log (dmesg) says why", err)
	}
	return err
}

// checkName says why a name may not stand in a tree.
func checkName(name string, depth, length int) error {
	if !fs.ValidPath(name) || name == "." {
		return refuse("%.100q is not a clean relative UTF-8 path: rename it", name)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return refuse("the name %.100q has a control character: rename it", name)
	}
	parts := strings.Split(name, "/")
	if len(parts) > depth {
		return refuse("%.100q is more than %d folders deep: nest less", name, depth)
	}
	for _, part := range parts {
		if len(part) > length {
			return refuse("the name %.100q is longer than %d bytes: shorten it", part, length)
		}
	}
	return nil
}

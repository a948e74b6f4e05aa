// Package keystore keeps the bots' secret keys and mailbox passwords on disk, in a directory of its own that nobody else may
// read:
//
//	<root>/                       0700, owned by the daemon's user
//	<root>/<address>/             0700
//	<root>/<address>/secret.key   0600, one or more binary transferable secret keys (RFC 9580, section 10.2), concatenated
//	<root>/<address>/password     0600, the password as it is, no newline
//
// A write is atomic and durable: a temporary file beside its target is synced, renamed over it, and the directory is synced. So a
// crash leaves the old content or the new, and perhaps a ".tmp-" file, which Open removes. Every path is resolved inside
// root (os.Root), so neither an address nor a symbolic link leads out of it. Nothing is encrypted: who can read the
// daemon's files can read its memory.
//
// Errors name the path and what to do, never a secret.
package keystore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mayfly/internal/bot"
)

const (
	keyFile      = "secret.key"
	passwordFile = "password"
	tempPrefix   = ".tmp-"

	maxFile      = 1 << 20 // bytes of a key file: the largest keys have some tens of kB
	tagSecretKey = 5       // packet type of a primary secret key
)

var (
	// ErrNotFound is wrapped when nothing has been stored for that address.
	ErrNotFound = errors.New("not in the key store")
	// ErrExposed is wrapped by Open when others may reach the root.
	ErrExposed = errors.New("the key store must belong to the daemon's user alone")
)

// Store is an open key store. Concurrent use is safe; of two writes to the same secret the later wins whole.
type Store struct {
	path string
	root *os.Root
}

// Open opens the store in the directory root, which it makes if its parent exists, and removes what crashed writes left.
func Open(root string) (*Store, error) {
	err := os.Mkdir(root, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key store: %w: make its parent directory first", err)
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = syncPath(filepath.Dir(root)) // also where it is there: the start that has made it may have failed here
	}
	if err != nil {
		return nil, fmt.Errorf("key store: %w", bot.DiskError(err, root))
	}
	if err := checkPrivate(root); err != nil {
		return nil, err
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", bot.DiskError(err, root))
	}
	s := &Store{root, r}
	if err := s.sweep(); err != nil {
		r.Close()
		return nil, fmt.Errorf("key store %s: removing what a crash left: %w", root, bot.DiskError(err, root))
	}
	return s, nil
}

func checkPrivate(root string) error {
	info, err := os.Lstat(root)
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory: move it away", ErrExposed, root)
	case owner != uint32(os.Geteuid()):
		return fmt.Errorf("%w: %s is owned by uid %d, the daemon is uid %d: chown it", ErrExposed, root, owner, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %04o: chmod 700 it, and think about who has read it", ErrExposed, root, info.Mode().Perm())
	}
	return nil
}

// Close releases the directory.
func (s *Store) Close() error { return s.root.Close() }

// PutPassword stores the mailbox password of the bot. It must not be empty or hold a line end.
func (s *Store) PutPassword(a bot.Address, password string) error {
	if password == "" || strings.ContainsAny(password, "\r\n\x00") {
		return fmt.Errorf("password of %s: empty, or with a line end in it: check where it came from", a)
	}
	return s.put(a, passwordFile, []byte(password))
}

// Password gives the mailbox password of the bot; the error wraps ErrNotFound if there is none.
func (s *Store) Password(a bot.Address) (string, error) {
	b, err := s.get(a, passwordFile)
	return string(b), err
}

// PutKeys stores the bot's secret keys, all at once, in place of those before. Each must be one binary transferable secret
// key. They are not opened here: whether they can be used is for the gate to say.
func (s *Store) PutKeys(a bot.Address, keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("keys of %s: none given: use Delete to remove a bot", a)
	}
	for i, key := range keys {
		if parts, err := split(key); err != nil || len(parts) != 1 {
			return fmt.Errorf("key %d of %s: not one binary transferable secret key: export it with its secret part and without armor", i+1, a)
		}
	}
	file := bytes.Join(keys, nil)
	if len(file) > maxFile {
		return fmt.Errorf("keys of %s: %d bytes, more than %d: export fewer of them", a, len(file), maxFile)
	}
	return s.put(a, keyFile, file)
}

// Keys gives the bot's secret keys as they were put; the error wraps ErrNotFound if there are none.
func (s *Store) Keys(a bot.Address) ([][]byte, error) {
	file, err := s.get(a, keyFile)
	if err != nil {
		return nil, err
	}
	keys, err := split(file)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup, or have the bot's author install it again", s.name(a, keyFile))
	}
	return keys, nil
}

// DeleteKeys removes the bot's secret keys, and leaves the password, which is the account's. It is no error if there is
// nothing. The bytes are not overwritten: on copy-on-write and flash that would promise too much.
func (s *Store) DeleteKeys(a bot.Address) error {
	dir, err := checked(a)
	if err != nil {
		return err
	}
	err = s.root.Remove(filepath.Join(dir, keyFile))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = s.root.Remove(dir) // if it is empty now
	}
	switch {
	case errors.Is(err, syscall.ENOTEMPTY):
		err = s.sync(dir)
	case err == nil || errors.Is(err, fs.ErrNotExist): // also where it is gone: the call that has removed it may have failed here
		err = s.sync(".")
	}
	if err != nil {
		return fmt.Errorf("key store: the keys of %s: %w", a, bot.DiskError(err, s.path))
	}
	return nil
}

// List gives the addresses of all bots in the store, sorted.
func (s *Store) List() ([]bot.Address, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("key store %s: %w", s.path, bot.DiskError(err, s.path))
	}
	var addresses []bot.Address
	for _, e := range entries {
		a, err := bot.ParseAddress(e.Name())
		if err == nil && e.IsDir() && string(a) == e.Name() {
			addresses = append(addresses, a)
		}
	}
	slices.Sort(addresses)
	return addresses, nil
}

// checked is the directory name of an address: Address is a string type, and a caller may have made one without parsing.
func checked(a bot.Address) (string, error) {
	parsed, err := bot.ParseAddress(string(a))
	if err != nil {
		return "", fmt.Errorf("key store: %w", err)
	}
	if parsed != a {
		return "", fmt.Errorf("key store: %w: %q is not in its canonical form %q", bot.ErrAddress, string(a), string(parsed))
	}
	return string(a), nil
}

func (s *Store) name(a bot.Address, file string) string {
	return filepath.Join(s.path, string(a), file)
}

func (s *Store) get(a bot.Address, file string) ([]byte, error) {
	dir, err := checked(a)
	if err != nil {
		return nil, err
	}
	f, err := s.root.Open(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s: install the bot again", ErrNotFound, s.name(a, file))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name(a, file), bot.DiskError(err, s.path))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name(a, file), bot.DiskError(err, s.path))
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes: it was not written here, move it away", s.name(a, file), maxFile)
	}
	return b, nil
}

func (s *Store) put(a bot.Address, file string, content []byte) error {
	dir, err := checked(a)
	if err != nil {
		return err
	}
	if err := s.write(dir, file, content); err != nil {
		return fmt.Errorf("%s: %w: check the disk's space and the owner of %s", s.name(a, file), err, s.path)
	}
	return nil
}

func (s *Store) write(dir, file string, content []byte) error {
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := filepath.Join(dir, tempPrefix+rand.Text())
	if err := s.replace(temp, filepath.Join(dir, file), content); err != nil {
		s.root.Remove(temp)
		return err
	}
	if err := s.sync(dir); err != nil {
		return err
	}
	return s.sync(".") // also where dir was there: the call that has made it may have failed here
}

func (s *Store) replace(temp, target string, content []byte) error {
	f, err := s.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return s.root.Rename(temp, target)
}

// sync makes the entries of a directory of the store durable.
func (s *Store) sync(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func syncPath(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// sweep removes the temporary files that crashed writes left.
func (s *Store) sweep() error {
	left, err := fs.Glob(s.root.FS(), "*/"+tempPrefix+"*")
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := s.root.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// split cuts a key file at the primary secret keys. It reads packet headers only.
func split(file []byte) ([][]byte, error) {
	var starts []int
	r := bytes.NewReader(file)
	packets := packet.NewOpaqueReader(r)
	for {
		at := len(file) - r.Len()
		p, err := packets.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if p.Tag == tagSecretKey {
			starts = append(starts, at)
		}
	}
	if len(starts) == 0 || starts[0] != 0 {
		return nil, errors.New("does not begin with a secret key")
	}
	var keys [][]byte
	for i, start := range starts {
		end := len(file)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		keys = append(keys, file[start:end:end])
	}
	return keys, nil
}

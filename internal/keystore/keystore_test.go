package keystore

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
)

const alice = bot.Address("alice@chat.test")

func newKey(t *testing.T) []byte {
	t.Helper()
	e, err := openpgp.NewEntity("", "", "alice@chat.test", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivate(&b, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func TestWhatWasPutIsThereAfterReopening(t *testing.T) {
	s, path := open(t)
	keys := [][]byte{newKey(t), newKey(t)}
	if err := s.PutPassword(alice, "secret word"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutKeys(alice, keys); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p, err := s.Password(alice); err != nil || p != "secret word" {
		t.Errorf("Password = %q, %v", p, err)
	}
	if got, err := s.Keys(alice); err != nil || !slices.EqualFunc(got, keys, bytes.Equal) {
		t.Errorf("Keys = %d keys, %v; want the two that were put", len(got), err)
	}
	if got, err := s.List(); err != nil || !slices.Equal(got, []bot.Address{alice}) {
		t.Errorf("List = %v, %v", got, err)
	}
}

func TestModesKeepOthersOut(t *testing.T) {
	s, path := open(t)
	if err := s.PutPassword(alice, "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutKeys(alice, [][]byte{newKey(t)}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"": 0o700, "alice@chat.test": 0o700, "alice@chat.test/password": 0o600, "alice@chat.test/secret.key": 0o600,
	} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %04o, want %04o", name, info.Mode().Perm(), want)
		}
	}
}

func TestOpenRefusesWhatOthersCanReach(t *testing.T) {
	mode := func(m fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, m)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]struct {
		make func(*testing.T, string)
		want error
	}{
		"group may read":  {mode(0o740), ErrExposed},
		"others may pass": {mode(0o701), ErrExposed},
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrExposed},
		"a link": {func(t *testing.T, path string) {
			if err := os.Symlink(t.TempDir(), path); err != nil {
				t.Fatal(err)
			}
		}, ErrExposed},
		"parent missing": {func(t *testing.T, path string) { os.Remove(filepath.Dir(path)) }, fs.ErrNotExist},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "keys")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			test.make(t, path)
			_, err := Open(path)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v; want %v with the path", err, test.want)
			}
		})
	}
}

func TestOpenRefusesAnotherUsersDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	} else {
		path = "/root"
	}
	if _, err := Open(path); !errors.Is(err, ErrExposed) {
		t.Errorf("Open: %v; want ErrExposed", err)
	}
}

func TestMissingIsErrNotFound(t *testing.T) {
	s, _ := open(t)
	if _, err := s.Password(alice); !errors.Is(err, ErrNotFound) {
		t.Errorf("Password: %v", err)
	}
	if _, err := s.Keys(alice); !errors.Is(err, ErrNotFound) {
		t.Errorf("Keys: %v", err)
	}
}

// The password is the account's, which stays watched when its bot is uninstalled.
func TestDeleteKeysLeavesThePassword(t *testing.T) {
	s, path := open(t)
	key := [][]byte{newKey(t)}
	if err := errors.Join(s.PutKeys(alice, key), s.PutPassword(alice, "x")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to delete
		if err := s.DeleteKeys(alice); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keys(alice); !errors.Is(err, ErrNotFound) {
			t.Errorf("Keys: %v", err)
		}
		if password, err := s.Password(alice); err != nil || password != "x" {
			t.Errorf("Password: %q, %v", password, err)
		}
	}
	const bob = bot.Address("bob@chat.test")
	if err := errors.Join(s.PutKeys(bob, key), s.DeleteKeys(bob), s.DeleteKeys(bob)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, string(bob))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder is left: %v", err)
	}
}

func TestNoPathLeadsOut(t *testing.T) {
	s, path := open(t)
	outside := filepath.Join(filepath.Dir(path), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, a := range []bot.Address{"../outside", "..", ".", "", "a@b/../../outside", "/etc@x", "Alice@chat.test", "a@..", "-"} {
		if err := s.PutPassword(a, "x"); !errors.Is(err, bot.ErrAddress) {
			t.Errorf("PutPassword(%q): %v; want ErrAddress", a, err)
		}
		if err := s.DeleteKeys(a); !errors.Is(err, bot.ErrAddress) {
			t.Errorf("DeleteKeys(%q): %v; want ErrAddress", a, err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(path, string(alice))); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPassword(alice, "x"); err == nil {
		t.Error("wrote through a link that leads out of the root")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("%d files outside", len(left))
	}
}

func TestBadSecretsAreRefusedWithoutBeingNamed(t *testing.T) {
	s, _ := open(t)
	key := newKey(t)
	two := slices.Concat(key, newKey(t))
	if err := s.PutKeys(alice, [][]byte{key}); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][][]byte{
		"none": {}, "empty": {{}}, "armored": {[]byte("-----BEGIN PGP PRIVATE KEY BLOCK-----")}, "cut off": {key[:len(key)-1]},
		"two in one": {two}, "too large": slices.Repeat([][]byte{key}, maxFile/len(key)+1),
	} {
		if err := s.PutKeys(alice, keys); err == nil {
			t.Errorf("PutKeys took keys that are %s", name)
		}
	}
	if got, err := s.Keys(alice); err != nil || len(got) != 1 {
		t.Errorf("after refusals: %d keys, %v; want the first one still", len(got), err)
	}
	for _, password := range []string{"", "hunter2\n", "hunter2\x00"} {
		if err := s.PutPassword(alice, password); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("PutPassword(%q): %v; want an error that does not name it", password, err)
		}
	}
}

func TestDamagedFileIsAnError(t *testing.T) {
	s, path := open(t)
	if err := s.PutKeys(alice, [][]byte{newKey(t)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, string(alice), keyFile)
	for name, content := range map[string][]byte{"empty": {}, "noise": []byte("noise"), "huge": make([]byte, maxFile+1)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keys(alice); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s file: %v; want an error with its path", name, err)
		}
	}
}

// A crash between the write and the rename leaves a temporary file: it is not read, and the next Open removes it.
func TestCrashBeforeRename(t *testing.T) {
	s, path := open(t)
	if err := s.PutPassword(alice, "old"); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(path, string(alice), tempPrefix+"CRASHED")
	if err := os.WriteFile(left, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Password(alice); p != "old" || err != nil {
		t.Errorf("Password = %q, %v", p, err)
	}
	s2, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open left the temporary file: %v", err)
	}
	if p, err := s2.Password(alice); p != "old" || err != nil {
		t.Errorf("Password = %q, %v", p, err)
	}
}

// A rename that fails leaves the old content, no temporary file, and says where.
func TestFailedRenameLeavesNothing(t *testing.T) {
	s, path := open(t)
	dir := filepath.Join(path, string(alice))
	if err := os.MkdirAll(filepath.Join(dir, passwordFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.PutPassword(alice, "hunter2")
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, passwordFile)) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("PutPassword: %v; want an error with the path and without the password", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestReadOnlyDirectoryKeepsTheOldSecret(t *testing.T) {
	s, path := open(t)
	if err := s.PutPassword(alice, "old"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(path, string(alice))
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	asNobody(t, path)
	err := s.PutPassword(alice, "new")
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Errorf("PutPassword: %v; want a permission error with the path", err)
	}
	if p, err := s.Password(alice); p != "old" || err != nil {
		t.Errorf("Password = %q, %v; want the old one", p, err)
	}
}

// asNobody makes modes count for root too: it hands the tree to another user and takes that user's file system identity on
// this goroutine's thread until the test ends.
func asNobody(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(p, 65534, 65534))
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0xc5, 1, 0})
	f.Add([]byte{0xc5, 1, 0, 0xcd, 0, 0xc5, 1, 1})
	f.Add([]byte{0x97})
	f.Add([]byte{0xc5, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, file []byte) {
		keys, err := split(file)
		if err == nil && !bytes.Equal(bytes.Join(keys, nil), file) {
			t.Errorf("split lost bytes of %x", file)
		}
	})
}

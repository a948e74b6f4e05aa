//go:build linux && (amd64 || arm64)

package faults

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"mayfly/internal/bot"
	"mayfly/internal/keystore"
)

const dice = bot.Address("dice@example.org")

// secretKey is one binary transferable secret key, the same for all of a test run.
func secretKey(t *testing.T, name string) []byte {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", string(dice), nil)
	must(t, err)
	var b bytes.Buffer
	must(t, e.SerializePrivate(&b, nil))
	return b.Bytes()
}

func openKeys(t *testing.T, dir string) *keystore.Store {
	t.Helper()
	s, err := keystore.Open(filepath.Join(dir, "keys"))
	must(t, err)
	return s
}

// listing is a folder's files by name and content. Folders that hold nothing count.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == dir {
			return nil
		}
		if err != nil || name == dir {
			return err
		}
		line := "  " + rel(dir, name)
		if !e.IsDir() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))[:20]
		}
		lines = append(lines, line)
		return nil
	}))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// keysState is what a start finds: an empty folder of an account is nothing.
func keysState(t *testing.T, dir string) string {
	t.Helper()
	s := openKeys(t, dir)
	defer s.Close()
	accounts, err := s.List()
	must(t, err)
	for _, a := range accounts {
		_ = os.Remove(filepath.Join(dir, "keys", string(a))) // where it is empty
	}
	return listing(t, filepath.Join(dir, "keys"))
}

func keystoreOperations() []operation {
	var key, other []byte
	some := func(t *testing.T, dir string) {
		key, other = secretKey(t, "one"), secretKey(t, "two")
		s := openKeys(t, dir)
		defer s.Close()
	}
	with := func(t *testing.T, dir string) {
		some(t, dir)
		s := openKeys(t, dir)
		defer s.Close()
		must(t, s.PutKeys(dice, [][]byte{other}))
	}
	on := func(do func(*keystore.Store) error) func(t *testing.T, dir string) work {
		return func(t *testing.T, dir string) work {
			s := openKeys(t, dir)
			return work{func() error { return do(s) }, func() { s.Close() }}
		}
	}
	put := on(func(s *keystore.Store) error { return s.PutKeys(dice, [][]byte{key}) })
	return []operation{
		op("keystore", "open, the first time", nil, func(t *testing.T, dir string) work {
			return work{func() error {
				s, err := keystore.Open(filepath.Join(dir, "keys"))
				if err == nil {
					s.Close()
				}
				return err
			}, nil}
		}, func(t *testing.T, dir string) string {
			if _, err := os.Stat(filepath.Join(dir, "keys")); err != nil {
				return "nothing"
			}
			return "keys:" + keysState(t, dir)
		}),
		op("keystore", "the first key", some, put, keysState),
		op("keystore", "another key", with, put, keysState),
		op("keystore", "a password beside a key", with, on(func(s *keystore.Store) error { return s.PutPassword(dice, "secret") }), keysState),
		op("keystore", "delete the keys", with, on(func(s *keystore.Store) error { return s.DeleteKeys(dice) }), keysState),
	}
}

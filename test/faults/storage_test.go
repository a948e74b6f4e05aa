//go:build linux && (amd64 || arm64)

package faults

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/storage"
)

const digest = "0123456789abcdef0123456789abcdef"

type tree map[string]string

func archive(files tree) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(files[name]))}
		if strings.HasSuffix(name, "/") {
			h = &tar.Header{Name: name, Mode: 0o700, Typeflag: tar.TypeDir}
		}
		_ = w.WriteHeader(h) // into memory
		_, _ = w.Write([]byte(files[name]))
	}
	_ = w.Close()
	return b.Bytes()
}

func openStorage(t *testing.T, dir string) *storage.Store {
	t.Helper()
	s, err := storage.Open(filepath.Join(dir, "bots"))
	must(t, err)
	return s
}

func rules() storage.Rules { return storage.FolderRules(10e6, 10e6, nil) }

// generations are the newest of each kind, which is what a session names, and all bundles.
func generations(t *testing.T, dir string) string {
	t.Helper()
	s := openStorage(t, dir)
	defer s.Close()
	var all []string
	for _, kind := range []storage.Kind{storage.Account, storage.Folder} {
		found, _ := filepath.Glob(filepath.Join(dir, "bots", string(dice), string(kind), "[0-9]*"))
		for i, name := range found {
			if i == len(found)-1 || len(found) == 1 {
				all = append(all, fmt.Sprintf("%s:\n%s", kind, listing(t, name)))
			}
		}
	}
	for _, kind := range []string{"bundle", "compiled"} {
		for _, name := range globbed(filepath.Join(dir, "bots", string(dice), kind, "[0-9a-f]*")) {
			all = append(all, fmt.Sprintf("%s:\n%s", rel(dir, name), listing(t, name)))
		}
	}
	return strings.Join(all, "\n")
}

func globbed(pattern string) []string {
	found, _ := filepath.Glob(pattern)
	return found
}

func storageOperations() []operation {
	old := tree{"a": strings.Repeat("x", 5000), "dir/": "", "dir/b": "kept"}
	change := tree{"a": strings.Repeat("y", 150_000), "dir/": "", "dir/b": "kept", "new/": "", "new/deep/": "", "new/deep/c": "z"}
	many := maps.Clone(old)
	for i := range 20 {
		many[fmt.Sprintf("many-%02d", i)] = fmt.Sprint(i)
	}
	empty := func(t *testing.T, dir string) { must(t, openStorage(t, dir).Close()) }
	based := func(t *testing.T, dir string) {
		s := openStorage(t, dir)
		defer s.Close()
		_, _, err := s.Import(t.Context(), dice, storage.Folder, 0, bytes.NewReader(archive(old)), rules())
		must(t, err)
		must(t, s.PutBundle(dice, strings.Repeat("f", 32), []storage.File{{Path: "bot.toml", Data: []byte("old")}}))
	}
	on := func(do func(*testing.T, *storage.Store) error) func(*testing.T, string) work {
		return func(t *testing.T, dir string) work {
			s := openStorage(t, dir)
			return work{func() error { return do(t, s) }, func() { s.Close() }}
		}
	}
	load := func(kind storage.Kind, base bot.Generation, files tree) func(*testing.T, string) work {
		stream := archive(files)
		return on(func(t *testing.T, s *storage.Store) error {
			_, _, err := s.Import(t.Context(), dice, kind, base, bytes.NewReader(stream), rules())
			return err
		})
	}
	bundle := []storage.File{{Path: "bot.toml", Data: []byte("name")}, {Path: "lib/x.js", Data: bytes.Repeat([]byte("x"), 9000)}}
	compiled := op("storage", "a compiled bundle", based, on(func(t *testing.T, s *storage.Store) error {
		return s.ImportCompiled(t.Context(), dice, digest, "wazero-1", bytes.NewReader(archive(old)), rules())
	}), generations)
	compiled.unsynced = func(string) bool { return true } // it is made again
	return []operation{
		op("storage", "the first generation", empty, load(storage.Account, 0, old), generations),
		op("storage", "a generation on another", based, load(storage.Folder, 1, change), generations),
		op("storage", "a generation with many files", based, load(storage.Folder, 1, many), generations),
		op("storage", "the first bundle", empty, on(func(t *testing.T, s *storage.Store) error { return s.PutBundle(dice, digest, bundle) }), generations),
		compiled,
		op("storage", "sweep generations", based, on(func(t *testing.T, s *storage.Store) error {
			_, err := s.Sweep(dice, storage.Folder)
			return err
		}), swept),
		op("storage", "sweep bundles", based, on(func(t *testing.T, s *storage.Store) error {
			_, err := s.SweepBundles(dice)
			return err
		}), swept),
		op("storage", "remove a bot", based, on(func(t *testing.T, s *storage.Store) error { return s.Remove(dice) }), removed),
	}
}

// swept is whether what was to be swept is there: a part of it is as good as all, for nobody names it.
func swept(t *testing.T, dir string) string {
	return fmt.Sprint(len(globbed(filepath.Join(dir, "bots", "*", "folder", "*"))), len(globbed(filepath.Join(dir, "bots", "*", "bundle", "*"))))
}

// removed is what is left of a bot by its name.
func removed(t *testing.T, dir string) string {
	return listing(t, filepath.Join(dir, "bots", string(dice)))
}

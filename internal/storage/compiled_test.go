package storage

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestCompiledGoesWithItsBundle(t *testing.T) {
	s := openStore(t, t.TempDir())
	rules := Rules{Files: 10, Depth: 2, Name: 100, Bytes: 1000, File: 1000, Change: 1000}
	one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
	for _, digest := range []string{one, two} {
		if there, err := s.HasCompiled(dice, digest, "engine-1.0"); there || err != nil {
			t.Fatal(there, err)
		}
		if err := s.ImportCompiled(t.Context(), dice, digest, "engine-1.0", bytes.NewReader(pack(t, tree{"code": digest})), rules); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := s.HasCompiled(dice, one, "engine-1.1"); there || err != nil {
		t.Error("another engine's is there", err)
	}
	var out bytes.Buffer
	if err := s.ExportCompiled(dice, one, "engine-1.0", &out); err != nil || !bytes.Contains(out.Bytes(), []byte(one)) {
		t.Errorf("exported %d bytes: %v", out.Len(), err)
	}
	if n, err := s.SweepBundles(dice, two); n != 1 || err != nil {
		t.Errorf("swept %d: %v", n, err)
	}
	if there, err := s.HasCompiled(dice, two, "engine-1.0"); !there || err != nil {
		t.Error("what was to be kept is gone", err)
	}
	if err := s.ExportCompiled(dice, one, "engine-1.0", &out); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func TestCompiledRefuses(t *testing.T) {
	s := openStore(t, t.TempDir())
	rules := Rules{Files: 10, Depth: 2, Name: 100, Bytes: 10, File: 10, Change: 10}
	digest := strings.Repeat("1", 64)
	for _, engine := range []string{"", "../x", "a/b", ".hidden", "A B"} {
		if err := s.ImportCompiled(t.Context(), dice, digest, engine, bytes.NewReader(pack(t, tree{"code": "x"})), rules); !errors.Is(err, ErrRefused) {
			t.Errorf("engine %q: %v", engine, err)
		}
	}
	if err := s.ImportCompiled(t.Context(), dice, digest, "e", bytes.NewReader(pack(t, tree{"code": strings.Repeat("x", 11)})), rules); !errors.Is(err, ErrRefused) {
		t.Errorf("a large one: %v", err)
	}
	if there, err := s.HasCompiled(dice, digest, "e"); there || err != nil {
		t.Error("what was refused is there", err)
	}
}

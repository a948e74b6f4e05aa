package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"mayfly/internal/bot"
)

// compiled is beside the kinds: what compiling a bundle's module gave.
const compiled = "compiled"

// checkEngine refuses what cannot be a part of a folder's name.
func checkEngine(engine string) error {
	if engine == "" || len(engine) > 100 || strings.Trim(engine, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || strings.HasPrefix(engine, ".") {
		return fmt.Errorf("%w: engine %.100q", ErrRefused, engine)
	}
	return nil
}

func compiledName(digest, engine string) (string, error) {
	return digest + "-" + engine, errors.Join(checkDigest(digest), checkEngine(engine))
}

// ImportCompiled keeps what an engine made of the bundle with this digest: a hostile tar stream, as for Import. What is there
// already is left.
func (s *Store) ImportCompiled(ctx context.Context, addr bot.Address, digest, engine string, r io.Reader, rules Rules) error {
	if err := s.importCompiled(ctx, addr, digest, engine, r, rules); err != nil {
		return fmt.Errorf("storage: compiled bundle %.100q of %s: %w", digest, addr, hint(err))
	}
	return nil
}

func (s *Store) importCompiled(ctx context.Context, addr bot.Address, digest, engine string, r io.Reader, rules Rules) error {
	name, err := compiledName(digest, engine)
	if err != nil {
		return err
	}
	dir, err := s.create(addr, compiled)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Stat(name); err == nil {
		return nil // it need not be durable: what a power cut takes is compiled again
	}
	im := newImporter(ctx, dir, addr, 0, rules)
	err = im.readStream(ctx, r)
	if err == nil {
		err = im.finish(ctx)
	}
	if err == nil {
		err = dir.Rename(im.tmp, name)
	}
	if err != nil {
		return errors.Join(err, dir.RemoveAll(im.tmp))
	}
	return syncDir(dir, ".")
}

// ExportCompiled writes what ImportCompiled kept as a tar archive. Its error wraps ErrMissing where there is nothing.
func (s *Store) ExportCompiled(addr bot.Address, digest, engine string, w io.Writer) error {
	name, err := compiledName(digest, engine)
	if err != nil {
		return fmt.Errorf("storage: %w", hint(err))
	}
	return s.export(addr, compiled, name, w)
}

// HasCompiled reports whether ImportCompiled kept something.
func (s *Store) HasCompiled(addr bot.Address, digest, engine string) (bool, error) {
	name, err := compiledName(digest, engine)
	if err == nil {
		err = checkAddress(addr)
	}
	if err == nil {
		_, err = s.root.Stat(path.Join(string(addr), compiled, name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("storage: compiled bundle %.100q of %s: %w", digest, addr, hint(err))
	}
	return true, nil
}

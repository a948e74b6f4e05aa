package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxKey and maxName bound a key and the file name that is made of it, in bytes.
const (
	maxKey  = 200
	maxName = 255
)

// newFile is the name under which a value is written before it takes the place of the old one. No key encodes to it.
const newFile = ".new"

// storageName returns the name of the file that holds key: see the package's description.
func storageName(key string) (string, error) {
	if key == "" || len(key) > maxKey || !utf8.ValidString(key) {
		return "", fmt.Errorf("storage: a key is 1 to %d bytes of text", maxKey)
	}
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case c == '/':
			b.WriteByte('+')
		case c >= 0x80, c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() > maxName {
		return "", fmt.Errorf("storage: the key %.40q… has too many special characters: its file name would be longer than %d bytes", key, maxName)
	}
	return b.String(), nil
}

// storageKey is the inverse of storageName; ok is false for names that storageName does not make.
func storageKey(name string) (key string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '+':
			b.WriteByte('/')
		case '%':
			var c byte
			if i+2 >= len(name) {
				return "", false
			}
			if _, err := fmt.Sscanf(name[i+1:i+3], "%02X", &c); err != nil {
				return "", false
			}
			b.WriteByte(c)
			i += 2
		default:
			b.WriteByte(name[i])
		}
	}
	again, err := storageName(b.String())
	return b.String(), err == nil && again == name
}

// storage is env.storage: one file a key in one folder.
type storage struct{ dir string }

func (s storage) get(key string) (value []byte, found bool, err error) {
	name, err := storageName(key)
	if err != nil {
		return nil, false, err
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, false, storageError(err)
	}
	defer root.Close()
	value, err = root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return value, err == nil, storageError(err)
}

func (s storage) put(key string, value []byte) error {
	name, err := storageName(key)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return storageError(err)
	}
	defer root.Close()
	if err := root.WriteFile(newFile, value, 0o600); err != nil {
		_ = root.Remove(newFile) // what was written of it would only fill the folder
		return storageError(err)
	}
	return storageError(root.Rename(newFile, name))
}

func (s storage) remove(key string) (existed bool, err error) {
	name, err := storageName(key)
	if err != nil {
		return false, err
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return false, storageError(err)
	}
	defer root.Close()
	err = root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, storageError(err)
}

// list returns the keys that begin with prefix, sorted by their bytes.
func (s storage) list(prefix string) ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, storageError(err)
	}
	keys := []string{}
	for _, entry := range entries {
		if key, ok := storageKey(entry.Name()); ok && strings.HasPrefix(key, prefix) && entry.Type().IsRegular() {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// storageError says what an error of the file system means to the author, who knows no paths.
func storageError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errors.New("storage: it is full: delete some keys or store less")
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return fmt.Errorf("storage: %w", pathError.Err)
	}
	return fmt.Errorf("storage: %w", err)
}

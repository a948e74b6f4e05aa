package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"mayfly/internal/bot"
)

// Usage returns how many bytes of disk all bots together take, with what is being written. A file that several generations
// share counts once.
func (s *Store) Usage() (int64, error) { return s.usage(".") }

// UsageOf is Usage of one bot; 0 where there is nothing of it.
func (s *Store) UsageOf(addr bot.Address) (int64, error) {
	if err := checkAddress(addr); err != nil {
		return 0, fmt.Errorf("storage: usage: %w", hint(err))
	}
	return s.usage(string(addr))
}

func (s *Store) usage(top string) (int64, error) {
	var total int64
	counted := map[uint64]bool{} // inodes of files with several names
	err := fs.WalkDir(s.root.FS(), top, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // swept in the meantime
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if !d.IsDir() && stat.Nlink > 1 {
			if counted[stat.Ino] {
				return nil
			}
			counted[stat.Ino] = true
		}
		total += stat.Blocks * 512
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("storage: usage: %w", hint(err))
	}
	return total, nil
}

package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"
)

const (
	// zipSlack is what a zip may be longer than its content: names and headers.
	zipSlack = 1 << 20
	// zipEntries bounds the entries that archive/zip will read into memory, before it is asked to.
	zipEntries = 20_000
	// zipRatio is the largest honest compression of a file above zipRatioFrom bytes.
	zipRatio     = 100
	zipRatioFrom = 1e6
)

// FromDir reads a bundle from a folder of the local file system. It never follows a link out of dir. The error is Problems
// when the bundle is at fault, else that of the file system.
func FromDir(dir string, c Ceilings) (*Bundle, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the bundle's folder: %w", err)
	}
	defer root.Close()
	set := newCollector(c)
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return set.walk(root, path, d)
	})
	if err != nil {
		return nil, fmt.Errorf("read the bundle's folder: %w", err)
	}
	return set.bundle()
}

func (c *collector) walk(root *os.Root, path string, d fs.DirEntry) error {
	switch {
	case c.overfull:
		return fs.SkipAll
	case path == ".":
		return nil
	case leftOut(path) && d.IsDir():
		return fs.SkipDir
	case leftOut(path), d.IsDir():
		return nil
	case !d.Type().IsRegular():
		c.fault(path, "is a link or special file", "put a copy of the file there")
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	if !c.admit(path, info.Size()) {
		return nil
	}
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.add(path, info.Size(), f)
}

// FromZip reads a bundle from a zip. The error is Problems.
func FromZip(data []byte, c Ceilings) (*Bundle, error) {
	set := newCollector(c)
	if int64(len(data)) > c.Total+zipSlack {
		set.full("the zip is larger than " + FormatSize(c.Total) + ", the operator's ceiling")
		return set.bundle()
	}
	if bytes.Count(data, []byte("PK\x01\x02")) > zipEntries {
		set.full(fmt.Sprintf("more than %d files, the operator's ceiling", c.Files))
		return set.bundle()
	}
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // insecure paths are ours to report
		return nil, Problems{{File: "bundle", Message: "not a readable zip", Fix: "pack it anew"}}
	}
	for _, f := range r.File {
		set.zipEntry(f)
	}
	return set.bundle()
}

func (c *collector) zipEntry(f *zip.File) {
	if c.overfull || f.Mode().IsDir() || strings.HasSuffix(f.Name, "/") && utf8.ValidString(f.Name) && f.UncompressedSize64 == 0 {
		return
	}
	switch {
	case !f.Mode().IsRegular():
		c.fault(f.Name, "is a link or special file", "put a copy of the file there")
	case f.Flags&1 != 0:
		c.fault(f.Name, "is encrypted", "pack it without a password")
	case bomb(f.UncompressedSize64, f.CompressedSize64):
		c.fault(f.Name, fmt.Sprintf("unpacks to more than %d times its size", zipRatio), "leave it out")
	case c.admit(f.Name, clampSize(f.UncompressedSize64)):
		if err := c.unpack(f); err != nil {
			c.fault(f.Name, "cannot be unpacked: "+err.Error(), "pack it anew, with deflate or without compression")
		}
	}
}

func (c *collector) unpack(f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return c.add(f.Name, clampSize(f.UncompressedSize64), r)
}

func bomb(size, compressed uint64) bool { return size > zipRatioFrom && size/zipRatio > compressed }

// clampSize keeps a claimed size from becoming negative.
func clampSize(size uint64) int64 { return int64(min(size, 1<<62)) }

// Zip packs the bundle's files, for a mail or a download. FromZip of it gives the same Digest.
func (b *Bundle) Zip() ([]byte, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range b.Files {
		part, err := w.Create(f.Path)
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := part.Write(f.Data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the bundle: %w", err)
	}
	return buf.Bytes(), nil
}

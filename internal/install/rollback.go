package install

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/storage"
)

// previous reads the bundle that ran before the installed one. It is checked again: the operator's ceilings may be lower now.
// Why it cannot be had is told as bundle.Problems.
func (in *Installer) previous(addr bot.Address, now ledger.Bot) (*bundle.Bundle, error) {
	problem := func(message string) error {
		return bundle.Problems{{File: "rollback", Message: message, Fix: "put a message with the bundle that is to run into the folder " + Folder}}
	}
	switch {
	case now.Digest == "":
		return nil, problem("no bot is installed")
	case now.Previous == "":
		return nil, problem("there is no version before " + title(now.Manifest))
	}
	var stored bytes.Buffer
	err := in.Bundles.ExportBundle(addr, now.Previous, &stored)
	if errors.Is(err, storage.ErrMissing) {
		return nil, problem("the version before " + title(now.Manifest) + " is no longer on this host")
	}
	if err != nil {
		return nil, err
	}
	files, err := untar(&stored)
	if err != nil {
		return nil, fmt.Errorf("the bundle %s of %s: %w", now.Previous, addr, err)
	}
	b, err := bundle.FromFiles(files, in.Ceilings)
	if err == nil && b.Digest != now.Previous {
		return nil, problem("the version before " + title(now.Manifest) + " is damaged on this host")
	}
	return b, err
}

func untar(r io.Reader) ([]bundle.File, error) {
	var files []bundle.File
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		files = append(files, bundle.File{Path: header.Name, Data: data})
	}
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/emersion/go-message/mail"

	"mayfly/examples"
	"mayfly/internal/bundle"
)

// statusMail is what a tool reads from a mail in Bot/Status; package install describes them.
type statusMail struct {
	state, text, invite string
}

func readStatus(raw []byte) (statusMail, error) {
	r, err := mail.CreateReader(bytes.NewReader(raw))
	if err != nil {
		return statusMail{}, fmt.Errorf("status mail: %w", err)
	}
	s := statusMail{state: r.Header.Get("Mayfly-State")}
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return s, fmt.Errorf("status mail: %w", err)
		}
		if _, inline := part.Header.(*mail.InlineHeader); inline && s.text == "" {
			text, err := io.ReadAll(io.LimitReader(part.Body, 1<<20))
			if err != nil {
				return s, fmt.Errorf("status mail: %w", err)
			}
			s.text = strings.ReplaceAll(string(text), "\r\n", "\n")
		}
	}
	s.invite = regexp.MustCompile(`https://i\.delta\.chat/#\S+`).FindString(s.text)
	return s, nil
}

// exampleDice is examples/dice, as a bundle.
func exampleDice() (*bundle.Bundle, error) {
	dice, err := examples.Dice()
	if err != nil {
		return nil, err
	}
	var files []bundle.File
	err = fs.WalkDir(dice, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(dice, path)
		files = append(files, bundle.File{Path: path, Data: data})
		return err
	})
	if err != nil {
		return nil, err
	}
	return bundle.FromFiles(files, bundle.DefaultCeilings())
}

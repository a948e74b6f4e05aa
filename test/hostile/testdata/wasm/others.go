// wall: others
// tries: what belongs to others: in its environment, its arguments, and every file that it can reach
// ends: exit 0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func others(string) {
	say("trying", "the environment and all files")
	for _, v := range append(os.Environ(), os.Args...) {
		if strings.Contains(v, "CANARY") || strings.Contains(v, "MAYFLY_SECRET") {
			say("BROKE", "%s", v)
		}
	}
	n := 0
	for _, dir := range []string{"/", "/storage", "/bundle", "/tmp", "/attachments", "/compiled"} {
		filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || n > 10000 {
				return nil
			}
			n++
			if b, err := os.ReadFile(name); err == nil && len(b) < 1<<16 && strings.Contains(string(b), "CANARY") {
				say("BROKE", "%s", name)
			}
			return nil
		})
	}
	say("held", "%d files", n)
}

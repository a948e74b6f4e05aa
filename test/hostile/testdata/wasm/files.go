// wall: files
// tries: files of the host, by absolute names, by climbing, by links of its own; to write what is not its
// ends: exit 0
// folder: kept or refused symbolic

package main

import (
	"os"
	"path/filepath"
)

func files(string) {
	for _, name := range []string{"/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/mem", "/dev/mem", "/storage/../etc/passwd",
		"/storage/../../../../etc/passwd", "/tmp/../proc/self/status", "../etc/passwd", "/compiled", "/"} {
		_, err := os.ReadFile(name)
		refused("to read "+name, err)
	}
	for _, name := range []string{"/new", "/bundle/new", "/bundle/main.wasm", "/attachments/../new", "/storage/../new", "/compiled/new"} {
		refused("to write "+name, os.WriteFile(name, nil, 0o600))
	}
	for _, to := range []string{"/etc/passwd", "../../etc/passwd", "/proc/self/environ", "..", "/"} {
		link := filepath.Join("/storage", "link")
		if err := os.Symlink(to, link); err != nil {
			say("held", "a link to %s: %v", to, err)
			continue
		}
		_, err := os.ReadFile(link)
		refused("to read a link to "+to, err)
		_, err = os.ReadFile(link + "/etc/passwd")
		refused("to read through a link to "+to, err)
		os.Remove(link)
	}
	refused("to move the bundle", os.Rename("/bundle/main.wasm", "/storage/main.wasm"))
	refused("to link the bundle", os.Link("/bundle/main.wasm", "/storage/main.wasm"))
	refused("to move out", os.Rename("/tmp", "/tmp2"))
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/wasm/wasmtest"
)

// wasmBot is a bot in Go, compiled for WASI: it counts its runs, and answers with what it was told.
const wasmBot = `package main

import (
	"fmt"
	"io"
	"net/mail"
	"os"
	"strings"
)

func main() {
	m, err := mail.ReadMessage(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no mail:", err)
		os.Exit(65)
	}
	body, _ := io.ReadAll(m.Body)
	text := strings.TrimSpace(string(body))
	if text == "trap" {
		var p *int
		*p = 1
	}
	runs, _ := os.ReadFile(os.Getenv("HOME") + "/runs")
	runs = append(runs, 'x')
	if err := os.WriteFile(os.Getenv("HOME")+"/runs", runs, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(74)
	}
	fmt.Printf("%s said %s, run %d\n", os.Getenv("MAYFLY_SENDER_NAME"), text, len(runs))
}
`

func wasmFiles(module string) files {
	return files{"main.wasm": module, "bot.toml": `
name = "Module"
version = "1.0.0"
contact = "mailto:author@example.org"
runtime = "wasm"
main = "main.wasm"
`}
}

func TestWASMBot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": wasmBot, "go.mod": "module bot\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	address, invite := w.start("wasmbot01", wasmFiles(string(wasmtest.Build(t, dir))))
	ada := w.person("ada000030")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("ada000030 said hello, run 1")
	jobs := 3
	ada.say(chat, "trap")
	w.awaitJobs(address, jobs+1)
	if r := w.run(address).Record; r.Status != bot.RunError || !strings.Contains(r.Log, "nil pointer") {
		t.Errorf("the record of a trap: %+v", r)
	}
	if m := ada.hear(); !strings.HasPrefix(m.Text, "Sorry") {
		t.Errorf("after a trap: %q", m.Text)
	}
	w.stop()
	w.serve()
	ada.say(chat, "again")
	ada.expect("ada000030 said again, run 2")
	if compiled, _ := filepath.Glob(filepath.Join(w.dir, "state/bots/*/compiled/*-wazero-*")); len(compiled) != 1 {
		t.Errorf("compiled modules: %q", compiled)
	}
}

func TestBadModulesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("wasmbad01")
	w.append(client, address, wasmFiles("\x00asm\x01\x00\x00\x00"))
	w.serve()
	if mail := w.status(client, 1); !strings.Contains(mail, "Mayfly-State: refused") || !strings.Contains(mail, "_start") {
		t.Errorf("want a refusal that names _start, got\n%s", mail)
	}
	w.append(client, address, wasmFiles("not a module"))
	if mail := w.status(client, 2); !strings.Contains(mail, "Mayfly-State: refused") || !strings.Contains(mail, "main.wasm") {
		t.Errorf("want a refusal that names main.wasm, got\n%s", mail)
	}
}

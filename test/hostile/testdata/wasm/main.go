// Command wasm is the hostile programs for the WASM runtime, in one module: the first line of stdin says which one to be. Each is in
// a file of its own, with its manifest.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

func main() {
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	name, variant, _ := strings.Cut(strings.TrimSpace(line), " ")
	programs := map[string]func(string){
		"hello": hello, "wait": wait, "setuid": setuid, "processes": processes, "files": files, "network": network, "descriptors": descriptors,
		"pointers": pointers, "memory": memory, "goroutines": goroutines, "spin": spin, "sleep": sleep, "disk": disk, "inodes": inodes,
		"crash": crash, "output": output, "storage": storage, "others": others, "stays": stays, "poll": poll,
	}
	program, ok := programs[name]
	if !ok {
		say("BROKE", "there is no program %q", name)
		os.Exit(99)
	}
	program(variant)
}

func say(how, format string, args ...any) {
	fmt.Fprintf(os.Stderr, how+": "+format+"\n", args...)
}

// refused says whether an attempt was.
func refused(what string, err error) {
	say("trying", "%s", what)
	if err == nil {
		say("BROKE", "%s", what)
		return
	}
	say("held", "%s: %v", what, err)
}

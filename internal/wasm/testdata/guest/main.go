// Command guest does what the first line of its input says: it is the module of the tests.
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	in := bufio.NewReader(os.Stdin)
	line, _ := in.ReadString('\n')
	command, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err := do(command, arg, in); err != nil {
		fmt.Println("error:", err)
	}
}

func do(command, arg string, in io.Reader) error {
	switch command {
	case "echo":
		fmt.Fprintln(os.Stderr, "to stderr")
		_, err := io.Copy(os.Stdout, in)
		return err
	case "args":
		fmt.Printf("%q\n", os.Args)
	case "env":
		fmt.Println(os.Getenv(arg), len(os.Environ()))
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		os.Exit(code)
	case "panic":
		panic(arg)
	case "world":
		return world()
	case "memory":
		return memory(arg)
	case "calls":
		return calls(arg)
	case "spin":
		for n := uint64(1); n != 0; n *= 3 {
		}
	case "connect":
		_, err := net.Dial("tcp", arg)
		return err
	}
	return files(command, arg)
}

func files(command, arg string) error {
	switch command {
	case "read":
		b, err := os.ReadFile(arg)
		fmt.Printf("%s\n", b)
		return err
	case "write":
		return os.WriteFile(arg, []byte("guest"), 0o600)
	case "append":
		f, err := os.OpenFile(arg, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("more")
		return err
	case "list":
		entries, err := os.ReadDir(arg)
		fmt.Println(entries)
		return err
	case "link":
		target, name, _ := strings.Cut(arg, " ")
		return os.Symlink(target, name)
	case "hardlink":
		target, name, _ := strings.Cut(arg, " ")
		return os.Link(target, name)
	case "rename":
		from, to, _ := strings.Cut(arg, " ")
		return os.Rename(from, to)
	case "remove":
		return os.Remove(arg)
	}
	return nil
}

// world tells the time, whether it passes, and a random number.
func world() error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	begun := time.Now()
	time.Sleep(20 * time.Millisecond)
	fmt.Println(begun.Unix(), time.Since(begun) >= 20*time.Millisecond, random)
	return nil
}

// memory takes megabytes, and writes on all of them.
func memory(megabytes string) error {
	n, err := strconv.Atoi(megabytes)
	if err != nil {
		return err
	}
	held := take(n)
	fmt.Println("has", len(held))
	return nil
}

func take(megabytes int) [][]byte {
	var held [][]byte
	for range megabytes {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	return held
}

// calls takes half of the megabytes and asks the host a hundred thousand things, which leave garbage there.
func calls(megabytes string) error {
	n, err := strconv.Atoi(megabytes)
	if err != nil {
		return err
	}
	held := take(n)
	for range 200_000 {
		if _, err := os.Stat("/bundle/" + strings.Repeat("x", 200)); err == nil {
			return fmt.Errorf("it is there")
		}
	}
	fmt.Println("has", len(held))
	return nil
}

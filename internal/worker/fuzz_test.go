package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func FuzzJob(f *testing.F) {
	f.Add([]byte(`{"job":{"event":"check","main":"main.js"}}`))
	f.Add([]byte(`{"job":{"event":"message","main":"a/b.js","deadline_ms":1,"heap":2,"message":{},"chat":{},"attachment":{"path":"/attachments/x"}}}`))
	f.Add([]byte(`{"job":{"event":"webxdc","main":"../x","update":{}}}`))
	f.Add([]byte(`{"job":[]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		j, err := parseJob(line)
		if err != nil {
			if !errors.Is(err, errJob) {
				t.Errorf("not a job error: %v", err)
			}
			return
		}
		if !json.Valid(j.raw) || strings.HasPrefix(j.Main, "/") || strings.HasPrefix(j.Main, "../") || j.Main == "" || j.Heap < 0 || j.DeadlineMS < 0 {
			t.Errorf("accepted: %+v", j)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":null}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}`))
	f.Add([]byte(`{"id":1,"error":{},"result":1}`))
	f.Add([]byte(`{"id":9223372036854775808,"result":{}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line)
		if err != nil {
			if !errors.Is(err, errAnswer) {
				t.Errorf("not an answer error: %v", err)
			}
			return
		}
		if !json.Valid(a.result) {
			t.Errorf("accepted: %q", a.result)
		}
	})
}

func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a\nb\n"), 10)
	f.Add([]byte("abcdef"), 3)
	f.Add(bytes.Repeat([]byte("x"), 100), 64)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		r := bufio.NewReaderSize(bytes.NewReader(in), 16)
		var got []byte
		for {
			line, err := readLine(r, limit)
			if err != nil {
				if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errLineTooLong) {
					t.Fatal(err)
				}
				break
			}
			if len(line) > limit || bytes.IndexByte(line, '\n') >= 0 {
				t.Fatalf("line of %d bytes, limit %d", len(line), limit)
			}
			got = append(append(got, line...), '\n')
		}
		if !bytes.HasPrefix(in, got) {
			t.Errorf("%q is no beginning of %q", got, in)
		}
	})
}

// Whatever a key is, it names one file of the folder and no other, and can be read back from the name.
func FuzzStorageName(f *testing.F) {
	for _, key := range []string{"a", "a/b", ".", "..", "../x", "%2E", "+", "ключ", "\x00", ".new", strings.Repeat("%", 200)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		name, err := storageName(key)
		if err != nil {
			return
		}
		if len(name) > maxName || strings.ContainsAny(name, "/\x00") || name[0] == '.' || name == newFile {
			t.Errorf("%q: %q is no safe file name", key, name)
		}
		if back, ok := storageKey(name); !ok || back != key {
			t.Errorf("%q became %q and then %q", key, name, back)
		}
	})
}

func TestStorageKeyRefusesOtherNames(t *testing.T) {
	for _, name := range []string{".new", "%2e", "%41", "%4", "a b", "", "%+1"} {
		if key, ok := storageKey(name); ok {
			t.Errorf("%q is taken for the key %q", name, key)
		}
	}
}

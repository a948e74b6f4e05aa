package sandbox

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/bot"
	"mayfly/internal/storage"
)

const folderBot = bot.Address("dice@relay.example")

// BenchmarkFolder is what a folder costs a run: it is copied into a sandbox, changed there, and streamed back to disk.
func BenchmarkFolder(b *testing.B) {
	for _, f := range []struct {
		name    string
		files   int
		size    int
		changed int // files
	}{
		{"1MB/20files/unchanged", 20, 50_000, 0},
		{"1MB/20files/all changed", 20, 50_000, 20},
		{"20MB/1000files/unchanged", 1000, 20_000, 0},
		{"20MB/1000files/1MB changed", 1000, 20_000, 50},
		{"20MB/1000files/all changed", 1000, 20_000, 1000},
		{"100MB/1000files/unchanged", 1000, 100_000, 0},
		{"100MB/1000files/1MB changed", 1000, 100_000, 10},
	} {
		b.Run(f.name, func(b *testing.B) { benchmarkFolder(b, f.files, f.size, f.changed) })
	}
}

func benchmarkFolder(b *testing.B, files, size, changed int) {
	store, err := storage.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	rules := storage.Rules{Files: 10_000, Depth: 16, Name: 255, Bytes: 200 << 20, File: 200 << 20, Change: 200 << 20}
	base, _, err := store.Import(b.Context(), folderBot, storage.Folder, 0, randomFolder(b, files, size), rules)
	if err != nil {
		b.Fatal(err)
	}
	fresh := make([]byte, size)
	var in, out, cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		spec := testSpec()
		spec.Dirs[0].Size, spec.Dirs[0].Inodes = 200<<20, 10_000
		s := open(b, spec)
		b.StartTimer()
		began := time.Now()
		before := ownCPU()
		r, w := io.Pipe()
		go func() { w.CloseWithError(store.Export(folderBot, storage.Folder, base, w)) }()
		if err := s.Put("/data", r); err != nil {
			b.Fatal(err)
		}
		in += time.Since(began)
		b.StopTimer()
		for i := range changed {
			fresh[0], fresh[1], fresh[2] = byte(rand.IntN(256)), byte(rand.IntN(256)), byte(rand.IntN(256))
			if err := s.PutFile(fileName("/data/", i), int64(size), bytes.NewReader(fresh)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		began = time.Now()
		stream, err := s.Collect("/data")
		if err != nil {
			b.Fatal(err)
		}
		gen, stats, err := store.Import(b.Context(), folderBot, storage.Folder, base, stream, rules)
		if err != nil || stats.Changed != changed {
			b.Fatal(stats, err)
		}
		out += time.Since(began)
		b.StopTimer()
		cpu += ownCPU() - before
		stream.Close()
		result, err := s.Close()
		if err != nil {
			b.Fatal(err)
		}
		cpu += result.CPU
		if gen != base {
			base = gen
			if _, err := store.Sweep(folderBot, storage.Folder, base); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(in.Microseconds())/1000/float64(b.N), "ms-in/op")
	b.ReportMetric(float64(out.Microseconds())/1000/float64(b.N), "ms-out/op")
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "ms-cpu/op") // the daemon's and the sandbox's, with its start
}

func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func fileName(dir string, i int) string { return fmt.Sprintf("%sd%d/f%d", dir, i%10, i) }

func randomFolder(b *testing.B, files, size int) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 10 {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d/", i)})
	}
	source := rand.NewChaCha8([32]byte{})
	for i := range files {
		w.WriteHeader(&tar.Header{Name: fileName("", i), Size: int64(size)})
		if _, err := io.CopyN(w, source, int64(size)); err != nil {
			b.Fatal(err)
		}
	}
	w.Close()
	return &buf
}

package worker

import (
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"mayfly/internal/worker/engine"
)

//go:embed js/*.js
var scripts embed.FS

// attachments is where a job says that the files of its message are.
const attachments = "/attachments/"

// prepare makes the globals. core.js loads what every job needs; the rest are loaded when a script first uses them.
func (w *worker) prepare() error {
	core, err := w.loadScript("core")
	if err != nil {
		return err
	}
	defer w.vm.Free(core)
	host := w.vm.Object()
	defer w.vm.Free(host)
	for name, f := range w.hostFunctions() {
		w.vm.Set(host, name, w.vm.Func(name, 4, f))
	}
	entries, err := w.vm.Call(core, host)
	if err != nil {
		return fmt.Errorf("core.js: %w", err)
	}
	defer w.vm.Free(entries)
	w.settle, w.fire = w.vm.Get(entries, "settle"), w.vm.Get(entries, "fire")
	w.waiting, w.start = w.vm.Get(entries, "waiting"), w.vm.Get(entries, "start")
	return nil
}

func (w *worker) loadScript(name string) (engine.Value, error) {
	source, err := scripts.ReadFile("js/" + name + ".js")
	if err != nil {
		return engine.Undefined(), err
	}
	return w.vm.Eval(internalPrefix+name+".js", string(source))
}

// hostFunctions are what the worker's own scripts may call. Authors' scripts never see them.
func (w *worker) hostFunctions() map[string]engine.HostFunc {
	return map[string]engine.HostFunc{
		"load":           w.hostLoad,
		"log":            w.hostLog,
		"send":           w.hostSend,
		"entered":        w.hostEntered,
		"noHandlers":     func([]engine.Value) (engine.Value, error) { return w.vm.String(noHandlers), nil },
		"deadline":       func([]engine.Value) (engine.Value, error) { return engine.Number(float64(w.deadline.UnixMilli())), nil },
		"now":            w.hostNow,
		"setTimer":       w.hostSetTimer,
		"clearTimer":     w.hostClearTimer,
		"encode":         w.hostEncode,
		"decode":         w.hostDecode,
		"btoa":           w.hostBtoa,
		"atob":           w.hostAtob,
		"random":         w.hostRandom,
		"digest":         w.hostDigest,
		"domain":         w.hostDomain,
		"ipv6":           w.hostIPv6,
		"readAttachment": w.hostReadAttachment,
		"writeFile":      w.hostWriteFile,
		"storageGet":     w.hostStorageGet,
		"storagePut":     w.hostStoragePut,
		"storageDelete":  w.hostStorageDelete,
		"storageList":    w.hostStorageList,
	}
}

func (w *worker) hostLoad(args []engine.Value) (engine.Value, error) {
	name, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	return w.loadScript(name)
}

func (w *worker) hostLog(args []engine.Value) (engine.Value, error) {
	prefix, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	text, err := w.vm.GoString(args[1])
	if err != nil {
		return engine.Undefined(), err
	}
	w.log.print(prefix, text)
	return engine.Undefined(), nil
}

// hostSend writes a request and returns its id.
func (w *worker) hostSend(args []engine.Value) (engine.Value, error) {
	method, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	params, err := w.vm.GoString(args[1])
	if err != nil {
		return engine.Undefined(), err
	}
	if w.expired() {
		return engine.Undefined(), errStopped
	}
	id, err := w.calls.add()
	if err != nil {
		return engine.Undefined(), err
	}
	if err := w.out.call(id, method, json.RawMessage(params)); err != nil {
		delete(w.calls.open, id)
		return engine.Undefined(), fmt.Errorf("%s: %w", method, err)
	}
	return engine.Number(float64(id)), nil
}

func (w *worker) hostEntered(args []engine.Value) (engine.Value, error) {
	at, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	w.handlerAt = at
	return engine.Undefined(), w.out.notify("entered", nil)
}

func (w *worker) hostNow([]engine.Value) (engine.Value, error) {
	return engine.Number(float64(time.Since(w.started)) / float64(time.Millisecond)), nil
}

func (w *worker) hostSetTimer(args []engine.Value) (engine.Value, error) {
	ms, err := w.vm.Float(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	id, err := w.timers.add(time.Now(), time.Duration(ms*float64(time.Millisecond)), w.vm.Truth(args[1]))
	return engine.Number(float64(id)), err
}

func (w *worker) hostClearTimer(args []engine.Value) (engine.Value, error) {
	id, err := w.vm.Float(args[0])
	if err == nil {
		w.timers.remove(int64(id))
	}
	return engine.Undefined(), err
}

func (w *worker) hostEncode(args []engine.Value) (engine.Value, error) {
	text, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	return w.vm.ArrayBuffer([]byte(text))
}

// hostDecode is (bytes, fatal, keepBOM).
func (w *worker) hostDecode(args []engine.Value) (engine.Value, error) {
	b, err := w.vm.Bytes(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	text := string(b)
	if w.vm.Truth(args[1]) && !utf8.ValidString(text) {
		return engine.Undefined(), engine.TypeError("TextDecoder: the bytes are not UTF-8")
	}
	if !w.vm.Truth(args[2]) {
		text = strings.TrimPrefix(text, "\uFEFF")
	}
	return w.vm.String(text), nil
}

// hostBtoa takes a string of characters up to U+00FF, each standing for a byte.
func (w *worker) hostBtoa(args []engine.Value) (engine.Value, error) {
	text, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	b := make([]byte, 0, len(text))
	for _, r := range text {
		b = append(b, byte(r))
	}
	return w.vm.String(base64.StdEncoding.EncodeToString(b)), nil
}

func (w *worker) hostAtob(args []engine.Value) (engine.Value, error) {
	text, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	text = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\f", "", "\r", "").Replace(text)
	if len(text)%4 == 0 {
		text = strings.TrimSuffix(strings.TrimSuffix(text, "="), "=")
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return engine.Undefined(), engine.TypeError("atob: the string is not base64")
	}
	var out strings.Builder
	for _, c := range b {
		out.WriteRune(rune(c))
	}
	return w.vm.String(out.String()), nil
}

func (w *worker) hostRandom(args []engine.Value) (engine.Value, error) {
	n, err := w.vm.Float(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	b := make([]byte, int(min(max(n, 0), 65536)))
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return w.vm.ArrayBuffer(b)
}

func (w *worker) hostDigest(args []engine.Value) (engine.Value, error) {
	algorithm, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	data, err := w.vm.Bytes(args[1])
	if err != nil {
		return engine.Undefined(), err
	}
	switch algorithm {
	case "SHA-1":
		sum := sha1.Sum(data)
		return w.vm.ArrayBuffer(sum[:])
	case "SHA-256":
		sum := sha256.Sum256(data)
		return w.vm.ArrayBuffer(sum[:])
	case "SHA-384":
		sum := sha512.Sum384(data)
		return w.vm.ArrayBuffer(sum[:])
	case "SHA-512":
		sum := sha512.Sum512(data)
		return w.vm.ArrayBuffer(sum[:])
	}
	return engine.Undefined(), engine.TypeError("digest: want SHA-1, SHA-256, SHA-384 or SHA-512, not " + strconv.Quote(algorithm))
}

// hostDomain maps a host name to its ASCII form (UTS #46, as the URL Standard uses it).
func (w *worker) hostDomain(args []engine.Value) (engine.Value, error) {
	name, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	ascii, err := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false)).ToASCII(name)
	if err != nil {
		return engine.Undefined(), engine.TypeError("not a host")
	}
	return w.vm.String(ascii), nil
}

func (w *worker) hostIPv6(args []engine.Value) (engine.Value, error) {
	text, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return engine.Undefined(), engine.TypeError("not an IPv6 address")
	}
	if a.Is4In6() { // the URL Standard writes these in hexadecimal
		b := a.As16()
		return w.vm.String(fmt.Sprintf("::ffff:%x:%x", int(b[12])<<8|int(b[13]), int(b[14])<<8|int(b[15]))), nil
	}
	return w.vm.String(a.String()), nil
}

func (w *worker) hostReadAttachment([]engine.Value) (engine.Value, error) {
	name, below := strings.CutPrefix(w.job.Attachment.Path, attachments)
	if !below {
		return engine.Undefined(), fmt.Errorf("the file of the message is not below %s", attachments)
	}
	root, err := os.OpenRoot(w.opts.Attachments)
	if err != nil {
		return engine.Undefined(), errors.New("the file of the message is not there")
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return engine.Undefined(), errors.New("the file of the message is not there")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, w.heap+1))
	if err != nil {
		return engine.Undefined(), errors.New("the file of the message cannot be read")
	}
	if int64(len(b)) > w.heap {
		return engine.Undefined(), fmt.Errorf("the file of the message is larger than the %d MB that a run may use", w.heap/1e6)
	}
	return w.vm.ArrayBuffer(b)
}

// hostWriteFile is (name, bytes): it writes a file to send into a directory of its own and returns its path.
func (w *worker) hostWriteFile(args []engine.Value) (engine.Value, error) {
	name, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	data, err := w.vm.Bytes(args[1])
	if err != nil {
		return engine.Undefined(), err
	}
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == '/' || r == 0x7f }) {
		return engine.Undefined(), engine.TypeError(fmt.Sprintf("file.name must be a plain file name such as \"dice.png\", not %.60q", name))
	}
	w.files++
	dir := filepath.Join(w.opts.Tmp, "out", strconv.Itoa(w.files))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return engine.Undefined(), fileError(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return engine.Undefined(), fileError(err)
	}
	return w.vm.String(path), nil
}

func fileError(err error) error {
	return fmt.Errorf("the file to send could not be written: %w", errors.Unwrap(err))
}

func (w *worker) store() storage { return storage{dir: w.opts.Storage} }

// key reads the first argument as a key. Only a string is one: a number that silently became a key would be a mistake.
func (w *worker) key(args []engine.Value) (string, error) {
	if !w.vm.IsString(args[0]) {
		return "", engine.TypeError("storage: the key must be a string")
	}
	return w.vm.GoString(args[0])
}

func (w *worker) hostStorageGet(args []engine.Value) (engine.Value, error) {
	key, err := w.key(args)
	if err != nil {
		return engine.Undefined(), err
	}
	value, found, err := w.store().get(key)
	if err != nil || !found {
		return engine.Null(), err
	}
	return w.vm.ArrayBuffer(value)
}

func (w *worker) hostStoragePut(args []engine.Value) (engine.Value, error) {
	key, err := w.key(args)
	if err != nil {
		return engine.Undefined(), err
	}
	value, err := w.vm.Bytes(args[1])
	if err != nil {
		return engine.Undefined(), err
	}
	return engine.Undefined(), w.store().put(key, value)
}

func (w *worker) hostStorageDelete(args []engine.Value) (engine.Value, error) {
	key, err := w.key(args)
	if err != nil {
		return engine.Undefined(), err
	}
	existed, err := w.store().remove(key)
	return engine.Bool(existed), err
}

func (w *worker) hostStorageList(args []engine.Value) (engine.Value, error) {
	prefix, err := w.vm.GoString(args[0])
	if err != nil {
		return engine.Undefined(), err
	}
	keys, err := w.store().list(prefix)
	if err != nil {
		return engine.Undefined(), err
	}
	text, err := json.Marshal(keys)
	return w.vm.String(string(text)), err
}

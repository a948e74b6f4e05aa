package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mayfly/internal/bot"
	"mayfly/internal/core/coretest"
	"mayfly/internal/keystore"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mayfly": main})
}

// TestScripts runs the command line as its users do. In the scripts, $CORE and $SANDBOX are the real core and broker.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "mayfly/cmd/mayfly-sandbox")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("CORE", coretest.Binary(t))
			env.Setenv("EXAMPLES", examples)
			env.Setenv("SANDBOX", filepath.Join(dir, "mayfly-sandbox"))
			for _, name := range []string{"state:mayfly", "other:other", "nowhere:nostate"} {
				state, file, _ := strings.Cut(name, ":")
				text := fmt.Sprintf("state = %q\n[relay]\nimap = \"127.0.0.1:1\"\nmaster_password_file = \"\"\n", filepath.Join(env.WorkDir, state))
				if err := os.WriteFile(filepath.Join(env.WorkDir, file+".toml"), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return makeState(t.Context(), filepath.Join(env.WorkDir, "state"))
		},
		RequireExplicitExec: true,
	})
}

// TestDocumentedConfigIsTheDefault holds docs/mayfly.toml against the program: every key is there, with its default.
func TestDocumentedConfigIsTheDefault(t *testing.T) {
	text, err := os.ReadFile("../../docs/mayfly.toml")
	if err != nil {
		t.Fatal(err)
	}
	var documented config
	if err := decodeConfig(text, &documented); err != nil {
		t.Fatal(err)
	}
	if want := defaultConfig(); !reflect.DeepEqual(documented, want) {
		t.Errorf("docs/mayfly.toml says\n%+v, the defaults are\n%+v", documented, want)
	}
	for _, key := range keysOf(reflect.TypeFor[config]()) {
		if !strings.Contains(string(text), "\n"+key+" = ") {
			t.Errorf("docs/mayfly.toml does not have the key %s", key)
		}
	}
}

// What the kernel holds all sandboxes to leaves room for what dispatch lets them take, and for the largest session.
func TestSandboxCeilings(t *testing.T) {
	c := defaultConfig()
	c.Limits.Cores = 0.5
	if most, err := c.sandboxes(); err != nil || most.Cores != 0.5 || most.Memory < 2_500_000_000 || most.Memory > 3_000_000_000 {
		t.Errorf("%+v, %v", most, err)
	}
	c.Limits.Memory = "100MB"
	if most, err := c.sandboxes(); err != nil || most.Memory < 950<<20 || most.Memory > 2<<30 {
		t.Errorf("with room for less than a session: %+v, %v", most, err)
	}
	c.Limits.Memory = "0B"
	if most, err := c.sandboxes(); err != nil || most.Memory != 0 {
		t.Errorf("without a limit: %+v, %v", most, err)
	}
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for f := range t.Fields() {
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type)...)
		} else {
			keys = append(keys, f.Tag.Get("toml"))
		}
	}
	return keys
}

// An account's own password is preferred to the master user, and without either the error says what to do.
func TestCredentials(t *testing.T) {
	const own, others = bot.Address("own@example.org"), bot.Address("others@example.org")
	keys, err := keystore.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	if err := keys.PutPassword(own, "its own"); err != nil {
		t.Fatal(err)
	}
	without := relayConfig{MasterUser: "mayfly", MasterPasswordFile: ""}
	master, err := without.masterPassword()
	if err != nil || master != "" {
		t.Fatalf("%q, %v: no file is no master user", master, err)
	}
	for _, test := range []struct {
		account              bot.Address
		master               string
		user, password, fail string
	}{
		{own, "secret", "own@example.org", "its own", ""},
		{own, "", "own@example.org", "its own", ""},
		{others, "secret", "others@example.org*mayfly", "secret", ""},
		{others, "", "", "", "set relay.master_password_file, or write the account's password into /state/keys/others@example.org/password"},
		{"../x", "secret", "", "", "not a mail address"},
	} {
		h := &host{cfg: config{State: "/state", Relay: without}, keys: keys, master: test.master}
		user, password, err := h.credentials(test.account)
		if user != test.user || password != test.password || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s, master %q: %q, %q, %v", test.account, test.master, user, password, err)
		}
	}
}

func TestStateHasOneDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockState(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(path); err == nil || !strings.Contains(err.Error(), "another mayfly runs") {
		t.Errorf("a second daemon got the lock: %v", err)
	}
	first.Close()
	again, err := lockState(path)
	if err != nil {
		t.Errorf("the lock outlived its holder: %v", err)
	}
	again.Close()
}

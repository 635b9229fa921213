package main

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// Every command has a help text with an example in it.
func TestHelp(t *testing.T) {
	sh := newShell(t)
	t.Chdir(packageDir)
	for _, cmd := range []string{
		"", "up", "dispatcher", "worker", "submit", "batch", "batch run", "batch resume", "batch retry-errors", "batch submit", "batch status", "batch fetch", "batch cancel", "batch ls", "jobs", "jobs ls", "jobs show", "jobs status", "jobs why", "jobs watch", "jobs result", "jobs cancel", "jobs retry",
		"queue", "queue ls", "queue pause", "queue resume", "queue purge", "dead", "dead ls", "dead show", "dead retry", "dead rm", "dead export", "nodes", "nodes ls",
		"nodes show", "nodes drain", "nodes undrain",
		"models", "models ls", "models load", "models unload", "models pin", "models unpin", "models estimate",
		"top", "doctor", "backends", "backends check", "simulate", "bench", "auth", "auth ls", "auth init", "auth add", "auth revoke", "health", "config", "config show", "config check", "version",
	} {
		stdout, stderr := sh.want(t, exitOK, append(strings.Fields(cmd), "--help")...)
		if stderr != "" {
			t.Errorf("%s: stderr is %q", cmd, stderr)
		}
		if group := slices.Contains([]string{"", "batch", "jobs", "queue", "dead", "nodes", "models", "auth", "config", "backends"}, cmd); !group && !strings.Contains(stdout, "    vramjet "+cmd) {
			t.Errorf("%s: no example in %s", cmd, stdout)
		}
		golden(t, "help/"+strings.Join(append([]string{"vramjet"}, strings.Fields(cmd)...), "-")+".txt", stdout)
	}
}

func TestNoArgumentsShowTheHelp(t *testing.T) {
	if stdout, _ := newShell(t).want(t, exitOK); !strings.Contains(stdout, "Usage: vramjet") {
		t.Errorf("stdout is %q", stdout)
	}
}

// TestSpelled: help and version are found where other programs have them.
func TestSpelled(t *testing.T) {
	sh := newShell(t)
	for _, c := range [][2]string{{"help", "--help"}, {"help jobs ls", "jobs ls --help"}, {"--version", "version"}} {
		want, _ := sh.want(t, exitOK, strings.Fields(c[1])...)
		if got, _ := sh.want(t, exitOK, strings.Fields(c[0])...); got != want {
			t.Errorf("vramjet %s prints %q, want %q", c[0], got, want)
		}
	}
}

// TestJoinable: other machines are told of an address that they can reach, and of no other.
func TestJoinable(t *testing.T) {
	for at, want := range map[string]string{
		"nats://127.0.0.1:4222": "", "nats://[::1]:4222": "", "": "",
		"nats://10.1.2.3:4222": "nats://10.1.2.3:4222", "nats://gpu-1:4222": "nats://gpu-1:4222",
	} {
		if got := joinable(at); got != want {
			t.Errorf("%q: %q, want %q", at, got, want)
		}
	}
	for _, at := range []string{"nats://0.0.0.0:4222", "nats://[::]:4222"} {
		if got := joinable(at); strings.Contains(got, "0.0.0.0") || strings.Contains(got, "127.0.0.1") || strings.Contains(got, "::]") {
			t.Errorf("%q: %q", at, got)
		}
	}
}

func TestUsage(t *testing.T) {
	sh := newShell(t)
	for _, c := range []struct{ args, want string }{
		{"submitt", "submitt"},
		{"submit hello", "--model"},
		{"submit -m m", "no prompt"},
		{"submit -m m --class urgent hello", "urgent"},
		{"submit -m m --deadline yesterday hello", "--deadline"},
		{"submit -m m --deadline -5m hello", "deadline"},
		{"submit -m m --embed --system x hello", "--embed"},
		{"submit -m m --max-tokens=-1 hello", "--max-tokens"},
		{"jobs cancel", "<id>"},
		{"jobs cancel", "vramjet jobs cancel --help"},
		{"submitt --help-me", "(see vramjet --help)"},
		{"submit -m m --wait 5 hello", `missing unit in duration "5", as in 5s, 10m or 2h (see vramjet submit --help)`},
		{"batch run nowhere.jsonl -o x --dry-run", "nowhere.jsonl"},
		{"up -s nats://127.0.0.1:1", "to join another, vramjet worker or vramjet dispatcher"},
		{"jobs ls --state lost", "lost"},
		{"jobs ls --limit 0", "--limit"},
		{"jobs ls --model [x", "pattern"},
		{"queue pause", "--all"},
		{"queue resume --all --model m", "--all"},
		{"queue purge --prefix a.b --all", "--prefix"},
		{"queue pause --class urgent", "urgent"},
		{"dead ls --code sadness", "sadness"},
		{"dead ls --by node", "node"},
		{"dead ls --limit 0", "--limit"},
		{"nodes --output yaml", "yaml"},
		{"config show --config nowhere.yaml", "nowhere.yaml"},
		{"nodes --context x --log-level loud", "loud"},
	} {
		if _, stderr := sh.want(t, exitUsage, strings.Fields(c.args)...); !strings.Contains(stderr, c.want) {
			t.Errorf("%s: stderr is %q, want %q in it", c.args, stderr, c.want)
		}
	}
}

func TestNoNATS(t *testing.T) {
	sh := newShell(t)
	for _, args := range []string{"top", "nodes", "queue", "queue pause --all", "queue resume --all", "queue purge --all", "dead", "dead rm x", "jobs ls", "jobs show x", "jobs watch", "jobs result x", "jobs retry x", "jobs status x", "jobs why x", "jobs cancel x", "submit -m m hi", "submit -m m --no-wait hi", "batch ls", "batch status batch_x", "batch fetch batch_x -o x"} {
		_, stderr := sh.want(t, exitNoNATS, append(strings.Fields(args), "--server", "nats://user:secret@127.0.0.1:1")...)
		if !strings.Contains(stderr, "127.0.0.1:1") || strings.Contains(stderr, "secret") {
			t.Errorf("%s: stderr is %q", args, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	sh := newShell(t)
	if stdout, _ := sh.want(t, exitOK, "version"); !strings.HasPrefix(stdout, "vramjet "+version+"  commit ") || !strings.Contains(stdout, "protocol v1  go1.") {
		t.Errorf("stdout is %q", stdout)
	}
	build := func(main string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: main}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, version + " unknown "},
		{build("(devel)"), version + " unknown go1.26.8"},
		{build("v1.2.3"), "v1.2.3 unknown go1.26.8"},
		{build("(devel)", "vcs.revision", "0123456789abcdef", "vcs.modified", "true"), version + " 0123456789ab-dirty go1.26.8"},
	} {
		v := readVersion(c.info)
		if got := fmt.Sprintf("%s %s %s", v.Version, v.Commit, v.Go); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

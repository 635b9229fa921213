package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vramjet/vramjet/providers"
)

// configCmd shows and checks the configuration.
type configCmd struct {
	Show  configShowCmd  `cmd:"" help:"Show every value and who set it."`
	Check configCheckCmd `cmd:"" help:"Check the configuration and connect to nothing."`
}

type configShowCmd struct{}

// Help is shown below the command's summary.
func (*configShowCmd) Help() string {
	return `What counts is the last of: the default, the file, the environment (VRAMJET_ and the key: VRAMJET_NATS_URL for nats.url; lists and maps as YAML), the flag.

Secrets are never shown: the configuration names the environment variables that hold them.

Examples:

    vramjet config show
    vramjet config show --config /etc/vramjet/config.yaml --json
`
}

// A shownValue is one line of config show.
type shownValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

// Run shows the configuration.
func (*configShowCmd) Run(a *app) error {
	cfg, from, err := a.load(nil)
	if err != nil {
		return err
	}
	values := show(cfg, from)
	if a.asJSON() {
		return a.printJSON(values)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tVALUE\tSOURCE")
	for _, v := range values {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Key, orDash(v.Value), v.Source)
	}
	return w.Flush()
}

type configCheckCmd struct{}

// Help is shown below the command's summary.
func (*configCheckCmd) Help() string {
	return `Says what is wrong, with the line, and warns of what may be: a key's environment variable that is not set, say.

Examples:

    vramjet config check --config vramjet.yaml
`
}

// Run checks the configuration.
func (*configCheckCmd) Run(a *app) error {
	cfg, from, err := a.load(nil)
	if err != nil {
		return err
	}
	for _, w := range warnings(cfg, a.getenv) {
		a.note("warning: %s", w)
	}
	file := "no file"
	for _, s := range from {
		if s.rank == byFile {
			file, _, _ = cutLast(s.name, ":")
			break
		}
	}
	if a.asJSON() {
		return a.printJSON(map[string]any{"ok": true, "file": file})
	}
	fmt.Fprintf(a.out, "ok (%s, %d backends)\n", file, len(cfg.Backends))
	return nil
}

// warnings says what of a valid configuration will not do what it seems to.
func warnings(cfg *Config, getenv func(string) string) []string {
	var w []string
	missing := func(key, name string) {
		if name != "" && getenv(name) == "" {
			w = append(w, fmt.Sprintf("%s: $%s is not set here", key, name))
		}
	}
	missing("nats.password_env", cfg.NATS.PasswordEnv)
	missing("nats.token_env", cfg.NATS.TokenEnv)
	for i := range cfg.Backends {
		for _, name := range cfg.Backends[i].KeysEnv {
			missing(fmt.Sprintf("backends[%d].keys_env", i), name)
		}
		if b := &cfg.Backends[i]; b.Kind == providers.KindBedrock && len(b.KeysEnv) == 0 {
			missing(fmt.Sprintf("backends[%d] without keys_env", i), awsKeyID)
			missing(fmt.Sprintf("backends[%d] without keys_env", i), awsSecretKey)
		}
	}
	slices.Sort(w)
	return w
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

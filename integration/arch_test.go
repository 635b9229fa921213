package integration

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestArrows holds the imports between the packages to the picture in
// docs/architecture.md: of this module, a package imports what its line names
// and nothing else.
func TestArrows(t *testing.T) {
	const module = "github.com/vramjet/vramjet/"
	allowed := map[string][]string{
		"schemas":                      {},
		"gpu":                          {"schemas"},
		"gpu/estimate":                 {"schemas"},
		"gpu/ledger":                   {"schemas"},
		"providers":                    {"schemas"},
		"providers/awsauth":            {},
		"providers/sim":                {"schemas"},
		"providers/rpc":                {"providers", "schemas"},
		"providers/providertest":       {"providers", "schemas"},
		"broker":                       {"schemas"},
		"broker/embedded":              {},
		"broker/brokertest":            {"broker", "broker/embedded"},
		"dispatcher/placement":         {"gpu/ledger", "schemas"},
		"dispatcher/simulate":          {"dispatcher/placement", "gpu/ledger", "schemas"},
		"dispatcher":                   {"broker", "dispatcher/placement", "gpu/ledger", "schemas"},
		"worker":                       {"broker", "gpu", "gpu/estimate", "gpu/ledger", "providers", "schemas"},
		"client":                       {"schemas"},
		"client/batch":                 {"client", "schemas"},
		"integration":                  {},
		"integration/containers":       {},
		"integration/containers/actor": {"broker", "client", "providers/sim"},
		"cmd/vramjet/dashboard":        {"client", "client/batch", "schemas"},
		"cmd/vramjet/bench":            {"broker", "broker/embedded", "client", "dispatcher", "dispatcher/simulate", "providers", "providers/sim", "schemas", "worker"},
		"cmd/vramjet": {
			"broker", "broker/embedded", "client", "client/batch", "cmd/vramjet/bench", "cmd/vramjet/dashboard", "dispatcher", "dispatcher/placement", "dispatcher/simulate", "gpu", "gpu/estimate", "providers", "providers/awsauth", "providers/rpc", "providers/sim", "schemas", "worker",
		},
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		may, ok := allowed[pkg]
		if !ok {
			t.Errorf("%s is not in the picture: say here what it may import", pkg)
		}
		for _, imp := range fields[1:] {
			if dep, ours := strings.CutPrefix(imp, module); ours && !slices.Contains(may, dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}

// TestPackagesSayWhatTheyAre: every package has one package comment.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}|{{.Doc}}|{{len .GoFiles}}`, "github.com/vramjet/vramjet/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if f[1] == "" && f[2] != "0" {
			t.Errorf("%s has no package comment", f[0])
		}
	}
}

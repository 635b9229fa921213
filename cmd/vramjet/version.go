package main

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// version is that of the next release; a build of a tagged module says its own.
const version = "0.1.0-dev"

// protocol is the version of the wire protocol.
const protocol = "v1"

// versionCmd shows the version.
type versionCmd struct{}

// Help is shown below the command's summary.
func (*versionCmd) Help() string {
	return `Examples:

    vramjet version
    vramjet version --json
`
}

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Protocol string `json:"protocol"`
	Go       string `json:"go"`
}

// Run shows the version.
func (*versionCmd) Run(a *app) error {
	info, _ := debug.ReadBuildInfo()
	v := readVersion(info)
	if a.asJSON() {
		return a.printJSON(v)
	}
	_, err := fmt.Fprintf(a.out, "vramjet %s  commit %s  protocol %s  %s\n", v.Version, v.Commit, v.Protocol, v.Go)
	return err
}

// readVersion returns the version of a build; info is nil where it is not known.
func readVersion(info *debug.BuildInfo) versionInfo {
	v := versionInfo{Version: version, Commit: "unknown", Protocol: protocol}
	if info == nil {
		return v
	}
	v.Go = info.GoVersion
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if commit := settings["vcs.revision"]; commit != "" {
		v.Commit = commit[:min(12, len(commit))]
		if settings["vcs.modified"] == "true" {
			v.Commit += "-dirty"
		}
		return v
	}
	if tag := info.Main.Version; tag != "(devel)" {
		v.Version = cmp.Or(tag, version)
	}
	return v
}

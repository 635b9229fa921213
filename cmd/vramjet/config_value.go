package main

import (
	"os"
	"path/filepath"
	"strings"
)

// configDir is where the user's programs keep their configuration; "" where that
// is not known.
func configDir(getenv func(string) string) string {
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		return dir
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config")
	}
	return ""
}

// selectedContext returns the context that the nats command is set to; "" where
// there is none.
func selectedContext(getenv func(string) string) string {
	dir := configDir(getenv)
	if dir == "" {
		return ""
	}
	name, err := os.ReadFile(filepath.Join(dir, "nats", "context.txt"))
	if err != nil {
		return "" // the nats command was never used here
	}
	return strings.TrimSpace(string(name))
}

// hostName returns the host's name as a node's name.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	token := []byte(name)
	for i, c := range token {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			token[i] = '-'
		}
	}
	return string(token[:min(len(token), 64)])
}

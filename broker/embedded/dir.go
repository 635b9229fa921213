package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// layout is the number of how a data directory is laid out. It stands in the
// directory, so that no other version of the program takes it for its own.
const layout = 1

const (
	versionFile = "VERSION"
	lockFile    = "vramjet.lock"
)

// errLocked says that another process holds a lock.
var errLocked = errors.New("locked")

// A dirLock is a data directory that is ours, until it is closed or the process
// ends. NATS takes none: two servers on one directory start, and destroy it.
type dirLock struct{ file *os.File }

// Close gives the directory back. It may be called again.
func (l *dirLock) Close() error {
	if err := l.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// openDir makes dir, if it is not there, and takes it.
func openDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory %s: %w: check its owner, or choose another", dir, err)
	}
	if err := checkVersion(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	if err := writeVersion(dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func lockDir(dir string) (*dirLock, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory %s: %w: check its owner, or choose another", dir, err)
	}
	lock := &dirLock{file}
	switch err := tryLock(file); {
	case errors.Is(err, errLocked):
		err := fmt.Errorf("the data directory %s is in use by process %s: stop it, or choose another directory", dir, holder(file))
		return nil, errors.Join(err, lock.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock the data directory %s: %w", dir, err), lock.Close())
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	err = file.Truncate(0)
	if err == nil {
		_, err = file.WriteAt([]byte(pid), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", file.Name(), err), lock.Close())
	}
	return lock, nil
}

// holder returns the id of the process that holds a lock.
func holder(file *os.File) string {
	var buf [20]byte
	n, _ := file.ReadAt(buf[:], 0) // an error leaves n at what was read
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return "(unknown)"
	}
	return strconv.Itoa(pid)
}

// checkVersion reports whether dir is laid out as we expect, or not at all yet.
func checkVersion(dir string) error {
	name := filepath.Join(dir, versionFile)
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
			return fmt.Errorf("the data directory %s belongs to a NATS server that is not ours (it has no %s): choose another", dir, versionFile)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read the layout of the data directory: %w", err)
	}
	if got := strings.TrimSpace(string(text)); got != strconv.Itoa(layout) {
		return fmt.Errorf("the data directory %s has layout %.20q, but this program knows layout %d only: use the program that made it, or another directory", dir, got, layout)
	}
	return nil
}

// writeVersion marks dir as laid out by us. The mark is there in whole or not at
// all.
func writeVersion(dir string) error {
	name := filepath.Join(dir, versionFile)
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	part := name + ".part"
	if err := os.WriteFile(part, []byte(strconv.Itoa(layout)+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark the data directory: %w", err)
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("mark the data directory: %w", err)
	}
	return nil
}

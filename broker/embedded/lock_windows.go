package embedded

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockedByte is the offset of the byte that is locked, far behind the text: a
// locked byte could not be read.
const lockedByte = 1 << 30

// tryLock locks file for this process, until it is closed. It returns errLocked
// where another holds it.
func tryLock(file *os.File) error {
	at := &windows.Overlapped{Offset: lockedByte}
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(file.Fd()), flags, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

//go:build !linux && !darwin

package gpu

// systemOpeners returns what may tell of devices here.
func systemOpeners() []opener { return []opener{smiOpener} }

package schemas

import (
	"fmt"
	"path"
)

// A Filter says which of a tenant's flows are meant. The zero Filter means all.
type Filter struct {
	Class Class  `json:"class,omitempty"` // "": all
	Model string `json:"model,omitempty"` // a name, or a pattern as of path.Match; "": all
}

// Check reports why no flow can match f.
func (f Filter) Check() error {
	if f.Class != "" && f.Class.Rank() == len(Classes) {
		return fmt.Errorf("the class %q is none of interactive, normal and batch", truncate(string(f.Class)))
	}
	if _, err := path.Match(f.Model, ""); err != nil || len(f.Model) > MaxModelBytes {
		return fmt.Errorf("the model %q is neither a name nor a pattern such as qwen3:*", truncate(f.Model))
	}
	return nil
}

// Match reports whether a class and a model are meant. A model is always matched by
// its own name, whatever is in it.
func (f Filter) Match(class Class, model string) bool {
	if f.Class != "" && f.Class != class {
		return false
	}
	if f.Model == "" || f.Model == model {
		return true
	}
	ok, err := path.Match(f.Model, model)
	return ok && err == nil
}

// Describe returns f in words: "class batch, model qwen3:*", "everything".
func (f Filter) Describe() string {
	switch {
	case f.Class == "" && f.Model == "":
		return "everything"
	case f.Model == "":
		return "class " + string(f.Class)
	case f.Class == "":
		return "model " + f.Model
	default:
		return "class " + string(f.Class) + ", model " + f.Model
	}
}

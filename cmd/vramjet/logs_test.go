package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logKeys returns the keys of attributes that the code logs, each once.
func logKeys(t *testing.T) (keys []string) {
	t.Helper()
	first := map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0} // where their attributes begin
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || path != "../.." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !isLogger(method.X) {
				return true
			}
			if from, ok := first[method.Sel.Name]; ok {
				for i := from; i < len(call.Args); i += 2 {
					literal, ok := call.Args[i].(*ast.BasicLit)
					if !ok {
						t.Errorf("%s logs a key that is no constant", path)
						continue
					}
					key, err := strconv.Unquote(literal.Value)
					if err != nil {
						t.Fatal(err)
					}
					keys = append(keys, key)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// isLogger reports whether an expression is a logger, by its name: log, logger or Logger
// at its end, or a call of a function of that name.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger" || x.Name == "slog"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Logger"
	case *ast.CallExpr:
		method, ok := x.Fun.(*ast.SelectorExpr)
		return ok && (method.Sel.Name == "logger" || method.Sel.Name == "With" && isLogger(method.X))
	default:
		return false
	}
}

// TestDocsLogKeys: the documentation has all keys of the log, and no others.
func TestDocsLogKeys(t *testing.T) {
	var documented []string
	for _, row := range tableUnder(t, page(t, "docs/operations.md"), "## Logs") {
		documented = append(documented, codes(row[0])...)
	}
	sameSet(t, "keys of the log", documented, logKeys(t))
}

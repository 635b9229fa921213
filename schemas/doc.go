// Package schemas is the wire protocol of vramjet, version 1: the subjects, the
// headers, the messages, the errors and their JSON Schemas.
//
// It does no I/O. Every other package may import it, and a program in another
// language needs nothing but what is here: the same protocol is written down as
// JSON Schemas (draft 2020-12) and as an AsyncAPI 3 document beside the code,
// and every message has a golden file in testdata.
package schemas

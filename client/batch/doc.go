// Package batch runs files of requests, in the format of OpenAI's batch API.
//
// A file has one request per line. It is checked as a whole before the first one is
// submitted; each line then is a job whose id is made of the batch's and the line's
// number, so that nothing is run twice, however often the same is asked for. What came
// of the lines is in JetStream; the files of answers are a copy of that, which is
// taken up where it was left off, and can be made anew on another machine.
//
// A batch has a bounded number of lines in the queue at a time. So the memory that it
// takes does not grow with the file, and several batches of a tenant take turns.
package batch

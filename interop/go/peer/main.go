// Peer is one end of a Turbo Tunnel session made of the Go libraries that the Rust programs have to get along with:
// smux over kcp-go over a succession of TCP connections. It exists for tests: it echoes bytes, and plays scripts.
//
//	peer echo-server [flags] ADDR      prints "listening ADDR" on stdout, then echoes every stream of every session
//	peer echo-client [flags] ADDR      stdin to one stream, the stream to stdout
//	peer script-server [flags] ADDR    prints the same, then does on every stream what its first line says
//	peer script-client [flags] ADDR    opens the streams that stdin tells of, a line each, and ends when all are done
//
// All print a line "counters: name=value ..." on stderr when they end.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"
)

// settings are what both programs can be told. The defaults are those of the worked example.
type settings struct {
	kcpWindow    int
	streamBuffer int
	queue        int
	fin          finMode
	keepalive    time.Duration
	dead         time.Duration
}

func (s *settings) flags(f *flag.FlagSet, streamBuffer int) {
	f.IntVar(&s.kcpWindow, "window", 1024, "KCP windows, both directions, in `segments`")
	f.IntVar(&s.streamBuffer, "stream-buffer", streamBuffer, "smux MaxStreamBuffer in `bytes`")
	f.IntVar(&s.queue, "queue", 32, "`packets` between KCP and TCP; what does not fit is dropped")
	f.Var(&s.fin, "fin", "what a received FIN does to writing: `old`, mid or new")
	f.DurationVar(&s.keepalive, "keepalive", 10*time.Second, "smux KeepAliveInterval")
	f.DurationVar(&s.dead, "dead-after", time.Minute, "smux KeepAliveTimeout")
}

func (s *settings) smux() *smux.Config {
	config := smux.DefaultConfig()
	config.Version = 2
	config.KeepAliveInterval = s.keepalive
	config.KeepAliveTimeout = s.dead
	config.MaxStreamBuffer = s.streamBuffer
	if config.MaxReceiveBuffer < s.streamBuffer {
		config.MaxReceiveBuffer = s.streamBuffer
	}
	return config
}

func (s *settings) tune(conn *kcp.UDPSession) {
	conn.SetStreamMode(true)
	conn.SetNoDelay(0, 0, 0, 1)
	conn.SetWindowSize(s.kcpWindow, s.kcpWindow)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: peer echo-server|echo-client|script-server|script-client [flags] ADDR; --help after either tells its flags")
	os.Exit(2)
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) < 2 {
		usage()
	}
	var s settings
	f := flag.NewFlagSet("peer "+os.Args[1], flag.ExitOnError)
	var run func(addr string) error
	switch os.Args[1] {
	case "echo-server", "script-server":
		s.flags(f, 65536)
		whileStdin := f.Bool("while-stdin", false, "end when stdin does")
		server := echoServer
		if os.Args[1] == "script-server" {
			server = scriptServer
		}
		run = func(addr string) error { return server(s, addr, *whileStdin) }
	case "echo-client":
		s.flags(f, 1<<20)
		end := f.String("end", "hold", "at the end of stdin: `hold` (close when as many bytes came back as were sent), half "+
			"(FIN, read on until the server's FIN) or close (at once, losing what is under way)")
		redial := f.Bool("retry", false, "a failed dial is tried again instead of being the end")
		run = func(addr string) error { return echoClient(s, addr, *end, *redial) }
	case "script-client":
		s.flags(f, 1<<20)
		redial := f.Bool("retry", false, "a failed dial is tried again instead of being the end")
		run = func(addr string) error { return scriptClient(s, addr, *redial) }
	default:
		usage()
	}
	f.Parse(os.Args[2:])
	if f.NArg() != 1 {
		usage()
	}
	err := run(f.Arg(0))
	counters.print()
	if err != nil {
		log.Fatal(err)
	}
}

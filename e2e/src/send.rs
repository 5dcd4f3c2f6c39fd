//! Sends a file's bytes over a Unix socket and prints what comes back: a corrupted agent's hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, file] = arguments.as_slice() else {
        eprintln!("usage: invivo-lab-send SOCKET FILE");
        return Ok(ExitCode::from(2));
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&std::fs::read(file)?)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    // The head is JSON; the lengths before it are not for people.
    println!("{}", String::from_utf8_lossy(answer.get(8..).unwrap_or_default()));
    Ok(ExitCode::SUCCESS)
}
